#!/bin/bash
# Start TRL's vLLM server on this machine, which then only generates, and say how a run on other machines reaches it.
#
#   scripts/launch_vllm_server.sh MODEL [--port 8000] [--tensor-parallel 1] [--data-parallel 1]
#                                 [--address-file FILE] [--wait 900] [-- further options of `trl vllm-serve`]
#
# Placement: the server takes whole GPUs that no rank trains on. On one machine give each its own with
# CUDA_VISIBLE_DEVICES; on several, one machine for the server and the others for `rlvr train`. In a Slurm job:
#
#   srun --nodes=1 --ntasks=1 --nodelist=FIRST scripts/launch_vllm_server.sh MODEL --address-file runs/x.server &
#
# The address file appears once the server answers, goes when it ends, and holds the settings that `rlvr train` needs:
#
#   rlvr train rollouts.backend=vllm $(cat runs/x.server) ...
#
# Ends with the server's exit code; SIGTERM and SIGINT are passed on to it. A server that does not answer in time ends
# with 1, a port that is taken already with 2.
set -u

usage() {
    sed -n '2,16p' "$0" | sed 's/^# \{0,1\}//' >&2
    exit 2
}

[ $# -ge 1 ] && [ "${1#-}" = "$1" ] || usage
model=$1
shift
port=8000 tensor=1 data=1 address_file= limit=900
while [ $# -gt 0 ]; do
    case $1 in
    --port | --tensor-parallel | --data-parallel | --address-file | --wait)
        [ $# -ge 2 ] || usage
        case $1 in
        --port) port=$2 ;;
        --tensor-parallel) tensor=$2 ;;
        --data-parallel) data=$2 ;;
        --address-file) address_file=$2 ;;
        --wait) limit=$2 ;;
        esac
        shift 2
        ;;
    --)
        shift
        break
        ;;
    *)
        echo "launch_vllm_server: unknown option $1" >&2
        usage
        ;;
    esac
done

# Whoever listens there would answer in the place of ours, which takes minutes to find the port taken.
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "launch_vllm_server: port $port of this machine is taken already; choose another with --port, or end what" \
        "listens there" >&2
    exit 2
fi

host=${RLVR_VLLM_HOST:-$(hostname)} # how the other machines call this one
trl vllm-serve --model "$model" --host 0.0.0.0 --port "$port" \
    --tensor_parallel_size "$tensor" --data_parallel_size "$data" "$@" &
server=$!
trap 'kill -TERM "$server" 2>/dev/null' TERM INT
if [ -n "$address_file" ]; then
    rm -f "$address_file"
    trap 'rm -f "$address_file" "$address_file.partial"' EXIT # nobody is to train with a server that is gone
fi

waited=0
until curl --silent --fail --max-time 5 "http://127.0.0.1:$port/health" >/dev/null && kill -0 "$server" 2>/dev/null; do
    if ! kill -0 "$server" 2>/dev/null; then
        wait "$server"
        code=$?
        echo "launch_vllm_server: the server ended with $code before it answered" >&2
        exit "$code"
    fi
    if [ "$waited" -ge "$limit" ]; then
        echo "launch_vllm_server: no answer on port $port after $limit seconds; raise --wait, or look above" >&2
        kill -TERM "$server"
        wait "$server"
        exit 1
    fi
    sleep 1
    waited=$((waited + 1))
done

settings="trl.vllm_mode=server trl.vllm_server_host=$host trl.vllm_server_port=$port"
echo "the server answers; train on the other GPUs with: rlvr train rollouts.backend=vllm $settings"
if [ -n "$address_file" ]; then
    echo "$settings" >"$address_file.partial" && mv "$address_file.partial" "$address_file"
fi
while :; do
    wait "$server"
    code=$?
    kill -0 "$server" 2>/dev/null || break # a signal ends the wait before the server has ended
done
exit "$code"
