# Ends what a test run has left: every process whose working directory is under the run's directory, then the directory.
# Standard input is a pipe that the test process holds open; it closes when that process ends, however it ends.
root=$1

cat >/dev/null

processes_under() {
    find /proc/[0-9]*/cwd -maxdepth 0 \( -lname "$1" -o -lname "$1/*" \) 2>/dev/null | cut -d/ -f3
}

# An immediate stop lets a postmaster take its children and its shared memory along.
for postmaster in "$root"/*/data/postmaster.pid; do
    [ -f "$postmaster" ] || continue
    pid=$(head -n 1 "$postmaster")
    [ "$(readlink "/proc/$pid/cwd")" = "${postmaster%/postmaster.pid}" ] && kill -QUIT "$pid" 2>/dev/null
done
for pid in $(processes_under "$root/localstack"); do
    kill -TERM "$pid" 2>/dev/null
done

tries=0
while [ -n "$(processes_under "$root")" ] && [ $tries -lt 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
for pid in $(processes_under "$root"); do
    kill -KILL "$pid" 2>/dev/null
done

rm -rf "$root"
