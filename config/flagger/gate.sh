#!/usr/bin/env bash
# Flagger's hooks are POSTs without a token, answered by a status: its load tester runs this for them (bash, curl and jq are in its image).
#   gate.sh weights SERVICE VERSION POINTS REST [SUPERVISE]   VERSION gets so many basis points and REST what is left; compared for 30m, or not
#   gate.sh not-worse SERVICE VERSION                         fails when VERSION is proven worse, was taken back, or is not compared
#   gate.sh proven SERVICE VERSION                            only when VERSION is proven to be within tolerance
#   gate.sh worse SERVICE VERSION                             only when VERSION is proven worse and still has traffic
# SWITCHBACK is the admin listener; the token, and the authority of its certificate if need be, are files in GATE_DIR.
set -euo pipefail

dir=${GATE_DIR:-/etc/switchback}
service=${SWITCHBACK:-https://switchback.switchback.svc:9901}/v1/services/$2

call() {
    local ca=()
    [[ ! -s $dir/ca.crt ]] || ca=(--cacert "$dir/ca.crt")
    printf 'authorization: Bearer %s\n' "$(<"$dir/token")" |
        curl -sS --fail-with-body --max-time 20 "${ca[@]}" -H @- -H 'content-type: application/json' "$@"
}

# The state of the comparison in which VERSION is the candidate; none when it is not.
state_of() {
    call "$service/verdict" | jq -r --arg version "$1" 'if .trial.candidate == $version then .state else "none" end'
}

case $1 in
    weights)
        # A hook that is called again must not begin the comparison anew; who changes something in between is not overwritten (412).
        read -r epoch share < <(call "$service" | jq -r --arg version "$3" '"\(.epoch) \(.weights[$version] // 0)"')
        [[ $share != "$4" ]] || exit 0
        call -X PUT -H "if-match: \"$epoch\"" --data "{\"$3\": $4}" "$service/weights?rest=$5&supervise=${6:-false}&reason=flagger" >/dev/null
        ;;
    not-worse)
        state=$(state_of "$3")
        [[ $state == @(collecting|healthy|suspect) ]] || { echo "$3: $state"; exit 1; }
        ;;
    proven)
        state=$(state_of "$3")
        [[ $state == healthy ]] || { echo "$3: $state"; exit 1; }
        ;;
    worse)
        state=$(state_of "$3")
        [[ $state == breached ]] || { echo "$3: $state"; exit 1; }
        ;;
    *)
        echo "gate.sh: there is no \`$1\`" >&2
        exit 2
        ;;
esac
