#!/bin/bash
# One run on a slice of Cloud TPU Spot VMs, made again after each preemption. docs/launch.md explains it. Run it on a
# machine that stays on, in tmux say:
#
#   NAME=bloodcell ZONE=us-west4-a NFS=10.0.0.2:/cells launch/tpu_vm.sh
#
# NFS is a Filestore share that all hosts mount as /work. It holds cells.zip, convnext_base.safetensors, the workdir, and
# this checkout as /work/bloodcell_jax.
set -u
: "${NAME:?}" "${ZONE:?}" "${NFS:?}"
ACCELERATOR=${ACCELERATOR:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}

# What each host runs. The two attributes are those that JAX reads itself: all hosts in order, and the number of this one.
read -r -d '' TRAIN <<'HOST'
attribute() {
    curl -fsS -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}
hosts=$(attribute worker-network-endpoints) && number=$(attribute agent-worker-number) || exit 5
first=${hosts%%,*}
export JAX_COORDINATOR_ADDRESS="${first##*:}:8476"
export JAX_NUM_PROCESSES=$(echo "$hosts" | tr , '\n' | wc -l)
export JAX_PROCESS_ID=$number
export PATH="$HOME/bloodcell/bin:$PATH"
cd "${WORK:-/work}" || exit 5
exec bloodcell train --config=convnext_base --workdir=runs/base \
    --config.data.source=zip:cells.zip --config.model.weights=convnext_base.safetensors \
    --connect_seconds=900 --grace_seconds=120
HOST

read -r -d '' SETUP <<HOST
set -e
sudo apt-get install -y -qq nfs-common
sudo mkdir -p /work
mountpoint -q /work || sudo mount -o hard $NFS /work
pip install -q uv
~/.local/bin/uv venv -q --python 3.12 --allow-existing ~/bloodcell
# A copy: a build writes into its sources, and the other hosts build as well.
rm -rf ~/source && cp -r /work/bloodcell_jax ~/source
~/.local/bin/uv pip install -q --python ~/bloodcell/bin/python "\$HOME/source[tpu]"
HOST

queued() { gcloud compute tpus queued-resources "$1" "$NAME" --zone="$ZONE" "${@:2}"; }
state() { queued describe --format='value(state.state)' 2>/dev/null; }
on_all_hosts() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"; }

make_slice() {
    until [ "$(state)" = ACTIVE ]; do
        case $(state) in
        # A slice that was preempted does not come back by itself.
        SUSPENDED | FAILED) queued delete --force --quiet ;;
        "") queued create --node-id="$NAME" --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" --spot ;;
        esac
        sleep 30
    done
}

# 100 preemptions in a run are enough to look at it.
for _ in $(seq 100); do
    make_slice
    on_all_hosts "$SETUP" && on_all_hosts "$TRAIN"
    code=$?
    case $code in
    0 | 2 | 3 | 4) break ;; # done; or the command, the data, a run that diverged: the same command would fail again
    esac
    # 75: stopped with the state saved; 5: the machine; 1 and 255: of gcloud and ssh, whose hosts are gone
    echo "exit code $code; once more in 60 s" >&2
    sleep 60
done
echo "The slice still costs money: gcloud compute tpus queued-resources delete $NAME --zone=$ZONE --force" >&2
exit "$code"
