#!/bin/sh
# Starts tonight's RayJob, a copy of the suspended one, and waits for its end: the CronJob's
# `concurrencyPolicy: Forbid` is about this script, so it has to last as long as the night does.
set -eu
pattern=yolox-ray-nightly
night=yolox-ray-night

# Its name and where it stands; nothing, if there is no such RayJob.
state() {
    kubectl get rayjob "$night" --ignore-not-found \
        --output 'jsonpath={.metadata.name} {.status.jobDeploymentStatus}'
}

has_ended() {
    case "$(state)" in *Complete | *Failed) true ;; *) false ;; esac
}

# Yesterday's. One that has not ended was left by a script that was killed: it is followed.
if has_ended; then
    kubectl delete rayjob "$night"
fi
found=$(state)
if [ -z "$found" ]; then
    changes='{"metadata": {"name": "'$night'", "annotations": null, "resourceVersion": null,
        "uid": null}, "spec": {"suspend": false}, "status": null}'
    kubectl get rayjob "$pattern" --output json |
        kubectl patch --local --filename - --type merge --patch "$changes" --output json |
        kubectl create --filename -
fi
until has_ended; do
    sleep "${SECONDS_BETWEEN_LOOKS:-30}"
done
state
case "$(state)" in *Complete) ;; *) exit 1 ;; esac
