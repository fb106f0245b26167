# In the guest, after it was powered off with the service and a job running.
set -eu

# The boot goes on beside this.
tries=0
until sysadmctl --json show over-power-off > job; do
	tries=$((tries + 1))
	[ $tries -lt 60 ]
	sleep 2
done
service sysadmd status
cat job
grep -q '"result": *"lost"' job
echo "--- its log"
cat /var/log/sysadmd.log
# It was told to end when the machine was powered off.
grep -q ' stopping' /var/log/sysadmd.log
# And can do what it is there for.
sysadmctl run -- /bin/echo hello | grep hello
service sysadmd stop
