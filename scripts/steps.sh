# Sourced by the scripts that take long: says what begins, and at the end what each step took.
# shellcheck shell=bash

steps=()
step_name=
step_begun=$SECONDS

step_ends() {
    [ -z "$step_name" ] || steps+=("$((SECONDS - step_begun)) s: $step_name")
    step_name=
}

# Begins a step, and ends the one before.
step() {
    step_ends
    step_name=$*
    step_begun=$SECONDS
    say "$(printf '%(%H:%M:%S)T' -1) $*"
}

# Prints what each step took.
tell_steps() {
    step_ends
    printf '\n== what each step took\n' >&2
    printf '%s\n' "${steps[@]}" >&2
}
trap tell_steps EXIT
