# In the guest, after it was powered off with the service and two jobs running.
set -eu

# The boot goes on beside this.
tries=0
until sysadmctl --json show heeds-term > job; do
	tries=$((tries + 1))
	[ $tries -lt 60 ]
	sleep 2
done
service sysadmd status
# What init(8) ended before the machine was off is known.
cat job
grep -q '"result": *"failed".*"return_code": *"-15"' job
# What was still running then is not.
sysadmctl --json show goes-on > job
cat job
grep -q '"result": *"lost"' job
echo "--- its log"
cat /var/log/sysadmd.log
# And can do what it is there for.
sysadmctl run -- /bin/echo hello | grep hello
service sysadmd stop
