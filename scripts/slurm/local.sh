#!/bin/bash
# Try train.sbatch without a cluster: start a Slurm of one node and two tasks here, submit
# the job with the given command, and follow its output until it ends:
#
#   scripts/slurm/local.sh MINUTES COMMAND...
#   scripts/slurm/local.sh 4 python experiments/digits.py --workdir runs/x
#
# It needs root and the packages slurmctld, slurmd, slurm-client and munge of Debian, and
# is meant for a container or a virtual machine; munge and its key stay. The signal comes
# two to three minutes before the time limit of MINUTES, so give at least 4, and a run that
# takes longer than the rest. Slurm waits two to three minutes before it starts the job
# again. Ctrl-C ends the job and the cluster.
set -euo pipefail
minutes=${1:?MINUTES COMMAND...}
shift
here=$(cd "$(dirname "$0")" && pwd)
state=$(mktemp -d /tmp/slurm.XXXXXX)
node=$(hostname -s)
export SLURM_CONF=$state/slurm.conf
mkdir "$state/ctld" "$state/d"

cat >"$SLURM_CONF" <<END
ClusterName=local
SlurmctldHost=$node
SlurmUser=root
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
NodeName=$node CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
END

job=
stop() {
    [ -z "$job" ] || scancel --quiet "$job" || true
    for name in slurmd slurmctld; do
        kill "$(cat "$state/$name.pid")" 2>/dev/null || true
    done
    echo "logs: $state"
}
trap stop EXIT

if ! munge -n >/dev/null 2>&1; then
    [ -s /etc/munge/munge.key ] || mungekey --create
    install -d -o munge -g munge /run/munge
    runuser -u munge -- munged
fi
slurmctld
slurmd
until sinfo --noheader --format=%t | grep -q idle; do sleep 1; done

cd "$here/../.."
job=$(sbatch --parsable --ntasks=2 --time="$minutes" --output="$state/job.out" \
    scripts/slurm/train.sbatch "$@")
last=
while true; do
    now=$(squeue --noheader --job="$job" --format="%T (restarted %r)" 2>/dev/null || true)
    [ "$now" = "$last" ] || echo "$(date +%T) ${now:-left the queue}"
    last=$now
    [ -n "$now" ] || break
    sleep 1
done
cat "$state/job.out"
