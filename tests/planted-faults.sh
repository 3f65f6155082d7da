#!/usr/bin/env bash
# Breaks the core on purpose, one fault a promise, and checks that a test notices. Works on a copy; about four minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$scratch"
cd "$scratch"
# The purity check reads the list of files from git.
git init -q && git add -A
export CARGO_TARGET_DIR="$scratch/target" CARGO_TERM_COLOR=never RUST_BACKTRACE=0

unit='cargo test -q -p bowline --lib'
# The simulated world and random scripts.
world='cargo test -q -p bowline-tests --test sim_promises --test sim_styles --test corpus'
echo "building the tests once, unbroken"
{ $unit && $world; } >/dev/null 2>&1 || { echo "the tests fail without a fault"; exit 2; }

missed=0
# promise · what is broken · file · sed expression · the command that must fail
plant() {
    local promise=$1 what=$2 file=$3 expression=$4
    shift 4
    cp "$file" "$scratch/before"
    sed -i -E "$expression" "$file"
    if cmp -s "$file" "$scratch/before"; then
        echo "$promise  NOT PLANTED  $what ($file has changed: mend the expression)"
        missed=$((missed + 1))
        return
    fi
    if timeout 300 "$@" >"$scratch/log" 2>&1; then
        echo "$promise  MISSED       $what"
        missed=$((missed + 1))
    elif grep -q '^error' "$scratch/log" && ! grep -q 'test result: FAILED' "$scratch/log"; then
        echo "$promise  NO BUILD     $what"
        sed -n 1,15p "$scratch/log"
        missed=$((missed + 1))
    else
        echo "$promise  caught       $what ($(grep -cE '^test .*FAILED|^    [a-z_:0-9]+$' "$scratch/log" || true) failures)"
    fi
    cp "$scratch/before" "$file"
}

plant G1 "a new connection forgets what was under way" core/src/outbox.rs \
    's/slot\.on_new_link == OnNewLink::Drop/true/' $unit outbox
plant G2 "the copy without an id is taken for new" core/src/inbox.rs \
    's/if key\.is_some\(\) && seen\.key == key/if false/' $unit inbox
plant G3 "a copy is acknowledged before the application is done" core/src/inbox.rs \
    's/(Stage::Held \| Stage::Released) => false,/\1 => true,/' $unit inbox
plant G4 "the configured capacity is ignored" core/src/outbox.rs \
    's/self\.ring\.len\(\) >= self\.config\.capacity \|\| //' $unit outbox
plant G5 "own sends count as life" core/src/session.rs \
    's/live\.beat\.data_sent\(now\);/live.beat.data_sent(now); live.beat.heard(now);/' $world
plant G6 "frames of an old connection are listened to" core/src/session.rs \
    's/self\.link\.listening\(\) != Some\(link\)/self.link.listening().is_none()/' $world
plant G7 "the back-off is cleared by a connection that dies at once" core/src/link.rs \
    's/let proven = !stable\.is_armed\(\);/let proven = true;/' $unit link
plant G8 "another stream of random numbers" core/src/rng.rs \
    's/0x9e37_79b9_7f4a_7c15/0x9e37_79b9_7f4a_7c17/' $unit rng
plant G9 "the verdict on a silent peer is not among the deadlines" core/src/heartbeat.rs \
    's/see\(Wake::Dead, &self\.answer\);//' $world
plant G10 "a way to panic" core/src/inbox.rs \
    's/self\.slots\.as_mut\(\)\.get_mut\(at\)\?\.as_mut\(\)/self.slots.as_mut().get_mut(at).unwrap().as_mut()/' .ci/core-is-pure

[ $missed = 0 ] && echo "all caught" || { echo "$missed not caught"; exit 1; }
