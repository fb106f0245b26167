# In the guest, as root: installs the wheel, runs the tests, leaves the service behind.
set -eu

# As pip does it; the guest has none.
site=$(python3.11 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python3.11 -m zipfile -e sysadmd-*.whl "$site"
python3.11 -m compileall -q "$site/sysadmd"
cp -R "$site"/sysadmd-*.data/data/ /usr/local/
chmod 755 /usr/local/etc/rc.d/sysadmd /usr/local/etc/rc.d/sysadmd_bridge
for program in sysadmd.__main__:sysadmd sysadmd.ctl:sysadmctl; do
	printf '#!/usr/local/bin/python3.11\nimport sys\nfrom %s import main\nsys.exit(main())\n' \
	    "${program%:*}" > "/usr/local/bin/${program#*:}"
	chmod 755 "/usr/local/bin/${program#*:}"
done

mkdir /tree
tar xf tree.tar -C /tree
cd /tree
export SYSADMD_TEST_SLOWNESS=10 SYSADMD_TEST_SERVICE=1
# One that fails has the rest tested all the same.
status=0
python3.11 -m pytest -p no:cacheprovider -v -rs --color=no --durations=10 -n2 --dist loadfile \
    tests/freebsd/test_rc_script.py tests/freebsd/test_bridge_script.py $(grep ^tests tests/freebsd/fast.txt) || status=$?

# With its default paths: what the second boot looks at.
sysrc sysadmd_enable=YES
service sysadmd start
tries=0
until sysadmctl run --no-wait --id heeds-term -- /bin/sleep 86400; do
	tries=$((tries + 1))
	[ $tries -lt 20 ]
	sleep 2
done
sysadmctl run --no-wait --id goes-on -- /bin/sh -c 'trap "" TERM; while :; do sleep 1; done'
exit $status
