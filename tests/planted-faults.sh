#!/usr/bin/env bash
# Breaks the core on purpose, one fault a promise and then some, and checks that a test notices. Works on a copy; about
# five minutes. The second list is what the simulator and the fuzzer found once, or would have to find.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --null -T - -cf - | tar -xf - -C "$scratch"
cd "$scratch"
# The purity check reads the list of files from git.
git init -q && git add -A
export CARGO_TARGET_DIR="$scratch/target" CARGO_TERM_COLOR=never RUST_BACKTRACE=0
# The simulator needs no adapter: without them a fault costs seconds.
sed -i -E '/^(adapters|bowline-|default|hyper|smol|socket2|rcgen|tungstenite|rustix|\[target)/d' tests/Cargo.toml

unit='cargo test -q -p bowline --features alloc,wire --lib'
# Random scripts and the simulated world, the quickest first.
world='cargo test -q -p bowline-tests --test corpus --test sim_promises --test sim_styles'
# The hub against its model, and with a thousand clients.
model='cargo test -q -p bowline-tests --test hub_model'
fleet='cargo test -q -p bowline-tests --test hub_fleet'
# Every situation of two sessions in small worlds: what it finds, it shows by the shortest script.
every='cargo test -q -p bowline-tests --test explore -- --nocapture'
echo "building the tests once, unbroken"
{ $unit && $every && $world && $model && $fleet; } >log 2>&1 || { tail -30 log; echo "the tests fail without a fault"; exit 2; }

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
        echo "$promise  caught       $what ($(sed -n 's/^---- \(.*\) stdout ----$/\1/p' "$scratch/log" | head -1))"
        sed -n '/^broken: /,/^[^ ]*:.* transitions/{/^broken: /p;/^  | /p}' "$scratch/log" | head -"${LINES_SHOWN:-24}"
    fi
    cp "$scratch/before" "$file"
}

plant G1 "a new connection forgets what was under way" core/src/outbox.rs \
    's/slot\.on_new_link == OnNewLink::Drop/true/' $unit outbox
plant G2 "the copy without an id is taken for new" core/src/inbox/memory.rs \
    's/key\.and_then\(\|key\| named\(Name::Content\(key\)\)\)/None::<(u32, Inbound)>/' $unit inbox
plant G3 "a copy is acknowledged before the application is done" core/src/inbox.rs \
    's/(Stage::Held \{ \.\. \} \| Stage::GivenBack \{ \.\. \} \| Stage::Released \| Stage::Vacant) => false,/\1 => true,/' $unit inbox
plant G4 "the configured capacity is ignored" core/src/outbox.rs \
    's/self\.config\.capacity\.min\(self\.ring\.limit\(\)\)/usize::MAX/' $unit outbox
plant G5 "own sends count as life" core/src/session.rs \
    's/live\.beat\.data_sent\(now\);/live.beat.data_sent(now); live.beat.heard(now);/' $world
plant G6 "frames of an old connection are listened to" core/src/session.rs \
    's/self\.link\.listening\(\) != Some\(link\)/self.link.listening().is_none()/' $world
plant G7 "the back-off is cleared by a connection that dies at once" core/src/link.rs \
    's/let proven = !stable\.is_armed\(\);/let proven = true;/' $unit link
plant G8 "another stream of random numbers" core/src/rng.rs \
    's/0x9e37_79b9_7f4a_7c15/0x9e37_79b9_7f4a_7c17/' $unit rng
plant G9 "the verdict on a silent peer is not among the deadlines" core/src/heartbeat.rs \
    's/see\(Wake::Dead, &self\.answer\.due\);//' $world
plant G10 "a way to panic" core/src/inbox.rs \
    's/let \(at, forget\) = oldest\?;/let (at, forget) = oldest.unwrap();/' .ci/core-is-pure

echo
plant G1 "what waited on the other path is not looked at again" core/src/session.rs \
    's/if \(self\.route\.path\(\), self\.route\.may_repeat\(self\.outbox\.posting\(\)\)\) != open/if false/' $unit session
plant G1 "an empty hedge budget stays empty" core/src/route.rs \
    's/self\.budget = self\.budget\.max\(HEDGE_FLOOR\.saturating_add\(1\)\);//' $unit route
miner='cargo test -q -p bowline-transport --features sr25519 --lib wire::bettensor'
plant I5 "where ids count, equal contents are one message" core/src/inbox.rs \
    's/Index::new\(seed, config\.dedup\)/Index::new(seed, DedupBy::IdOrContent)/; s/DedupBy::Id => \{\}/DedupBy::Id => inbound.found_by_key = true,/' $unit i5
plant I6 "another content under a known id is a copy" core/src/inbox.rs \
    's/\(Self::IdAndContent, Some\(key\)\) => id\.with\(key\),/(Self::IdAndContent, Some(_)) => id,/' $unit i6
plant I6 "a confirmation overtakes an earlier one of its id" core/src/inbox.rs \
    's/Stage::Done \{ rejected, \.\. \} => !self\.behind \&\& /Stage::Done { rejected, .. } => /' $unit i6
plant I6 "what is given back holds up all behind it" core/src/inbox/memory.rs \
    's/set_queue\(places, before, \|queue\| queue\.after = after\);//' $unit i6
plant I7 "two messages of one id are under way" core/src/outbox.rs \
    's/self\.open\(\) \&\& self\.after == Seq::NONE/self.open()/' $unit i7
plant I7 "what ends while it waits lets others overtake" core/src/outbox.rs \
    's/slot\.after = after;/slot.after = Seq::NONE;/' $unit i7
plant I7 "a late confirmation ends another message of its id" adapters/transport/src/wire/bettensor.rs \
    's/let here = .*;/let here = None;/' $miner
plant S13 "places are freed from the oldest on alone" core/src/outbox.rs \
    's/if self\.ring\.get\(offset\)\.is_some_and\(Slot::over\)/if offset == 0 \&\& self.ring.get(0).is_some_and(Slot::over)/' $unit outbox
plant F2 "HTTP that fails counts as a way for a late message" core/src/session.rs \
    's/self\.route\.has_http\(\) \&\& !self\.route\.http_failing\(\)/self.route.has_http()/' $unit f2_where_http_fails
plant F2 "what is too large for HTTP is not stuck" core/src/outbox.rs \
    's/if http \&\& slot\.size <= limit \{/if http {/' $unit f2_f4_
plant F2 "a message that is never answered ends a connection every two minutes" core/src/outbox.rs \
    's/patience\.saturating_mul\(1 << doublings\)/patience/' $unit f2_a_message
plant F2 "what is awaited on a connection that ends for a stuck message comes twice" core/src/session.rs \
    's/let holds = holds \|\| self\.outbox\.out_of_patience\(\);//; s/\(!self\.outbox\.awaiting\(\) \|\| self\.outbox\.is_silent\(\)\)/true/' \
    cargo test -q -p bowline-tests --test slow_receivers
plant T7 "quick answers shorten the wait below ordinary work" core/src/profile.rs \
    's/least: seconds\(35\), most: seconds\(120\)/least: seconds(10), most: seconds(120)/' \
    cargo test -q -p bowline-tests --test slow_receivers
plant F4 "what was once too large for HTTP is so for ever" core/src/outbox.rs \
    's/self\.refused_until\.fire\(now\)/false/' $unit f4_what
plant F4 "a larger one that passes says nothing" core/src/outbox.rs \
    's/slot\.size >= self\.refused_post\)/slot.size > u32::MAX - 1)/' $unit f4_a_larger
plant L11 "what is late is still under way" core/src/outbox.rs \
    's/slot\.open\(\) \&\& slot\.wait\(\)\.is_some\(\);/slot.open() \&\& slot.sent_on != LinkId::NONE;/' $unit l11_
plant T1 "the doubling outlives the connection" core/src/outbox.rs 's/self\.rtt\.link_down\(\);//' $unit t1_
plant T1 "the first answers of a slow peer say nothing" core/src/rtt.rs \
    's/estimate\.max\(first\)/first/' $unit t1_
plant H7 "the first in the ring is posted, not the oldest due" core/src/outbox.rs \
    's/is_none_or\(\|\(first, _\)\| due < first\)/is_none()/' $unit outbox
plant H7 "a message that fails is tried every second for ever" core/src/outbox.rs \
    's/slot\.failures = slot\.failures\.saturating_add\(1\);//' $unit outbox
plant T7 "bytes take no time" core/src/outbox.rs 's/\.after\(transfer_time\(u64::from\(slot\.size\)\)\)//' $unit outbox
plant T8 "every wait begins at once" core/src/outbox.rs 's/ \&\& slot\.turn\(\) <= last$//' $unit outbox
plant T8 "a wait that is over begins no other" core/src/outbox.rs \
    's/self\.begin_waits\(now, last\);//' $unit outbox
plant T2 "a burst answered at once lowers the mean" core/src/rtt.rs \
    's/mean\.min\(most\)\.max\(least\)/least/' $unit t2_
plant P3 "messages that the receiver has passed over move the others" core/src/session.rs \
    's/self\.outbox\.is_silent\(\) \&\& self\.route\.unanswered/self.route.unanswered/' $unit p3_two_messages
plant B11 "a message that hangs has the failing path for itself" core/src/route.rs \
    's/self\.config\.posts\.min\(2\)/1/' $unit b11_h7_
plant P3 "a pong brings traffic back to a mute peer" core/src/route.rs \
    's/let stable = if self\.silent \{/let stable = if false {/' $unit route
plant I1 "by HTTP a message has another id" core/src/session.rs \
    's/self\.outbox\.id\(post\.seq\)/self.outbox.id(post.seq.next())/' $world
plant S8 "the peer's rejection counts as a delivery" core/src/session.rs \
    's/self\.outbox\.on_reject\(now, link, id\)/self.outbox.on_ack(now, link, id)/' $unit session
plant S8 "a confirmed error counts as a delivery" core/src/outbox.rs \
    's/if success \{ delivered \}/if true { delivered }/' $unit outbox
plant F2 "sent again on the same connection" core/src/outbox.rs \
    's/ \|\| slot\.sent_on == link \{/ {/' $world
plant G2 "a completed message is forgotten at once" core/src/inbox.rs \
    's/let forget = now\.after\(self\.config\.horizon\);/let forget = now;/' $world
plant G2 "after a loss of state nothing is in doubt" core/src/inbox.rs \
    's/doubt: if config\.after_loss/doubt: if false/' $world
plant G5 "a stall of the process is held against the peer" core/src/session.rs \
    's/now\.since\(at\) > STALL/false/' $world
plant G6 "whichever attempt comes up first is taken" core/src/link.rs \
    's/Phase::Connecting \{ link: current, \.\. \} if \*current == link =>/Phase::Connecting { .. } =>/' $world
plant G7 "a failing HTTP path is not left alone" core/src/route.rs \
    's/!self\.http_waits\(\) \&\& underway/underway/' $world
plant G7 "a server that ends everything with 1009 is asked once a second" core/src/link.rs \
    's/class == RetryClass::PerMessage \&\& !earned/false/' $world
plant G9 "how often it is called decides what is a stall" core/src/session.rs \
    's/now\.since\(at\) > STALL/now.since(self.now) > at.since(self.now).saturating_mul(2).max(STALL)/' $world
plant G9 "a waiting request's limit does not fire" core/src/inbox.rs \
    's/inbound\.waits_until\(\) <= now/false/' $world
plant B7 "an attempt has no deadline" core/src/link.rs \
    's/attempt\.arm\(now\.after\(self\.config\.attempt\)\);//' $world
plant L8 "a close handshake has no limit" core/src/link.rs \
    's/limit\.arm\(now\.after\(self\.config\.closing\)\);//' $world
plant "rule 3" "output that waits is not announced" core/src/session.rs \
    's/if self\.drained \{ self\.earliest\(\)\.map\(/if true { self.earliest().map(/' $world
plant "rule 4" "a close is noticed one call too late" core/src/session.rs \
    '/self\.finish\(\);/{n;N;s/self\.align\(\);//}' $world
plant "rule 5" "time goes backwards" core/src/session.rs \
    's/let now = now\.max\(self\.now\);//' $world

echo
admission=core/src/hub/admission.rs
plant R7 "the end of a connection is cleaned up by identity" $admission \
    's/fn on_disconnected\(.*\{$/&\nif let Some(s) = self.conns.get(key).map(|c| c.identity).and_then(|i| self.find(i)) { self.untie(s.0); }/' $model
plant R8 "the newcomer is closed as replaced, not the old one" $admission \
    's/self\.close\(old, CloseReason::Replaced/self.close(conn, CloseReason::Replaced/' $model
plant U1 "a connection is ended and its session not untied" $admission \
    '/pub\(super\) fn end\(/,/^    \}/s/self\.untie\(peer\);//' $model
plant U1 "a session without a connection never ends" $admission 's/peer\.expires\.arm\(until\);//' $model
plant U1 "a session of its own is told as resumed" $admission 's/self\.made == made/self.made >= made/' $model
plant U2 "war from one's own address with a connection that was lost" $admission \
    's/if !here \{/if true {/' $model
plant U2 "two places behind one address fight for ever" $admission \
    's/^( *)peer\.takeovers = peer\.takeovers\(now, within\).*/\1let _ = within;/' $unit u2_
plant U2 "a fight behind one address goes on in the pause" $admission 's/ \|\| peer\.war_here\)/)/' $model
plant U2 "whoever knocked is not looked at before the next poll" core/src/hub/mod.rs \
    's/^        self\.promote\(key\);//' $model
plant U2 "a newcomer pays for its predecessor" core/src/session.rs '/the deadlines of the first one are not its own/{n;d}' $model
plant U3 "a frame of the peer's that is too long rejects ours" $admission \
    's/if why == CloseReason::TooLarge \{ Reason::Violation \}/if false { Reason::Violation }/' $model
plant U5 "newcomers get the last broadcast twice" core/src/hub/traffic.rs \
    's/conn\.snapshot \&= !how\.snapshot;//' $model
plant U6 "a slow reader's oldest broadcast stays" core/src/hub/traffic.rs 's/let _ = conn\.pending\.pop\(first\);//' $model
plant U7 "a connection that is full is written to from its welcome on" $admission 's/if !conn\.writable$/if false/' $model
# Clocks: time that stood still (L14), and what a hub that has just begun cannot know (U11).
plant L14 "a standstill that no deadline shows asks nobody" core/src/session.rs \
    's/^        if !self\.late \{/        if false {/' $unit l14_
plant L14 "a clock that jumps all the time hides a dead peer" core/src/session.rs \
    's/if self\.gaps > GAPS \{/if false {/' $unit l14_
plant L14 "all that were suspended together dial together" core/src/link.rs 's/\.max\(soonest\)/.max(soonest - soonest)/' $unit l14_
plant L14 "a hub that stood still asks nobody" core/src/hub/mod.rs \
    's/peer\.session\.stood_still\(now, Duration::ZERO\);//' $unit l14_
clock=adapters/transport/src/clock.rs
looks='cargo test -q -p bowline-transport --lib l14_'
plant L14 "a machine that was suspended is not noticed" $clock 's/gained\.max\(lost\) > GAP \|\| late/late/' $looks
plant L14 "a process that was stopped is not noticed" $clock 's/gained\.max\(lost\) > GAP \|\| late/gained > GAP/' $looks
plant L14 "the clocks are not looked at while nothing is due" $clock \
    's/\[due, look\]\.into_iter\(\)\.flatten\(\)\.min\(\)/due.or(look)/' $looks
plant U11 "a fresh hub refuses whoever is behind" core/src/hub/replay.rs 's/began\.saturating_sub\(behind\)/began/' $unit u11_
plant U11 "what was recorded before a restart counts for as long as the tolerance" core/src/hub/replay.rs \
    's/given_up\.max\(lost\)/given_up/' $unit u11_
plant U11 "a word of before is refused for good" core/src/hub/traffic.rs \
    's/\(CloseReason::Unjudged, Some\(retry_after\)\)/(CloseReason::Replayed, None)/' $unit u11_
plant U11 "who is told to come back gives up over it" core/src/link.rs 's/opened \&\& !earned \&\& !passes/opened \&\& !earned/' \
    $unit u11_
plant U11 "a wrong clock is no reason of its own" $admission 's/CloseReason::WrongClock/CloseReason::Replayed/' $unit u11_
plant U8 "an address that was refused is never forgotten" $admission '/Let in or not/{n;d}' $model
plant U8 "the same nonce twice in a greeting" $admission 's/self\.fresh\(wall, key, stamp\)\.map_err.*/let _ = stamp;/' $model
plant U8 "everybody refused is told the same time" core/src/hub/limit.rs \
    's/self\.next = start\.saturating_add\(offset\).*;//' $unit hub
plant U8 "nobody has to say who it is" $admission 's/self\.conns\.set_deadline\(conn, Some\(now\.after.*;//' $model
plant U9 "a drain that was slept through stops" $admission 's/if over \{ u32::MAX \}/if false { u32::MAX }/' $model
plant U9 "all of a drain at once" $admission 's/let batch = span\.div_ceil\(.*;/let batch = span.max(steps as usize);/' $fleet
plant L13 "a listener that closes turns its own peer away" core/src/session.rs \
    's/if self\.finished\(\) \{ Accepted::Refused \}/if self.closing { Accepted::Refused }/' $unit l13
plant L13 "who closes takes what is new" core/src/session.rs \
    '/^    fn on_close/,/^    \}/s/self\.inbox\.close\(\);//' $unit l13
plant L13 "the word about a request is not waited for" core/src/inbox.rs 's/ \|\| \(self\.closed\(\) && self\.index\.untold > 0\)//' $unit l13
plant L13 "a result that was known before the close is told to nobody" core/src/inbox.rs \
    's/^(        self\.untold = )true;/\1false;/' $unit l13
plant L13 "a request's answer leaves its acknowledgement owed" core/src/inbox.rs \
    's/self\.closed\(\), on_reject\)/false, on_reject)/' $unit l13
plant L13 "a hub that goes down lets nobody back" $admission \
    's/self\.drain\.is_some\(\) \&\& self\.owing == 0/self.drain.is_some()/' $unit l13
plant L13 "strangers are verified while the hub goes down" $admission \
    's/if self\.drain\.is_some\(\) \&\& !self\.awaits\(identity\)/if false/' $unit u9
plant L13 "a session that is not closed yet takes what is new" core/src/hub/traffic.rs \
    '/^    fn on_received/,/^    \}/s/peer\.session\.take_nothing_new\(\);//' $unit l13
plant L13 "the last acknowledgement leaves the door open" core/src/hub/turn.rs \
    's/^        self\.count_session\(key\);//' $unit l13
plant B2 "no window" core/src/hub/mod.rs 's/self\.config\.get\(\)\.reconnect_window/Duration::ZERO/' $fleet
plant P8 "the fleet is weighed in the middle of a replacement" $admission \
    's/self\.live = self\.live\.saturating_sub\(1\);/\0 self.weigh_fleet();/' $model
plant L8 "a close handshake of the hub's has no limit" $admission \
    's/self\.conns\.set_deadline\(key, Some\(until\)\);//' $model
plant G9 "the sessions' deadlines are not announced" core/src/hub/mod.rs \
    's/\[self\.peers\.deadline\(\), self\.conns/[self.conns/' $model
plant G9 "a deadline that passed before the first poll" core/src/hub/turn.rs \
    's/if due\.is_some_and\(\|at\| at <= self\.now\)/if false/' $model

native=core/src/session/native.rs
window=core/src/outbox/window.rs
# Two native sessions in worlds of every kind.
twin='cargo test -q -p bowline-tests --test native_world'
plant R3 "resume is inferred: a client asks for what it never had" $native \
    's/resume: resume \&\& native\.is_some_and\(Native::greeted\)/resume/' $unit native
plant H3 "what a poll carried is forgotten when it is written" $window \
    's/^( *)slot\.polled = polls;/\1slot.polled = polls; slot.answer = Answer::Arrived;/' $unit window
plant F2 "who is at work on another message has 3 s for a ping" core/src/session.rs \
    's/if self\.native\.is_none\(\) && \(self\.outbox\.awaiting\(\) \|\| longer\)/if false/' $unit f2
plant F2 "resent on a live connection" core/src/outbox.rs \
    's/ \|\| waits \|\| slot\.sent_on == link/ || waits/' $unit window
plant I1 "a new id for every attempt" core/src/ids.rs \
    's/\| u128::from\(seq\.get\(\) & 0xffff_ffff_ffff\)/| u128::from((seq.get() + 1) \& 0xffff_ffff_ffff)/' $unit ids
plant S4 "marks are said once and not repeated" core/src/marks.rs \
    's/arrived: self\.arrived, done: self\.done,/arrived: self.arrived, done: if self.untold > 0 { self.done } else { 0 },/' $twin
plant R5 "a lowest number that moved is not announced" $native \
    's/self\.announce \|= .*;/self.announce |= false;/' $unit native
plant S10 "credit is ignored" $window 's/self\.credit\.min\(self\.una/Seq::LAST.min(self.una/' $unit window
plant S10 "room that is not there is promised" core/src/inbox.rs \
    's/self\.config\.held\.min\(self\.capacity\(\)\)/self.config.held/' $unit native
memory=core/src/inbox/memory.rs
plant S14 "a peer that knows the hash can choose ids that share a place" $memory \
    's/let upper = hasher\.finish\(\) >> 32;/let unkeyed = |(high, low): (u64, u64)| ((0xcbf2_9ce4_8422_2325 ^ high).wrapping_mul(0x0100_0000_01b3) ^ low).wrapping_mul(0x0100_0000_01b3); let upper = if let Name::Id(id) = name { unkeyed(id.halves()) } else { hasher.finish() } >> 32;/' $unit s14
plant S14 "the seed makes no difference to the index" $memory \
    's/new_with_keys\(self\.key\.0, self\.key\.1\)/new_with_keys(7, 7)/' $unit s14
plant S14 "what is equal hashes differently when it lies elsewhere" core/src/inbox.rs \
    's/for \(_, inbound\) in self\.index\.messages\(self\.places\.as_ref\(\)\)/for inbound in self.places.as_ref()/' $unit s14
plant S14 "all that is remembered is looked through for a place" $memory \
    's/\.take\(OLDEST\)//' $unit s14
plant S15 "the memory grows beyond its bytes" core/src/inbox.rs \
    's/Index::most\(self\.config\.messages\(\)\)/Index::most(1 << 20)/' $unit s15
plant S15 "a vector is as long as it likes" core/src/store.rs 's/try_reserve_exact/try_reserve/' $unit store
plant S15 "the profile remembers a thousand batches" core/src/profile.rs 's/bytes: 8 << 20/bytes: 1 << 17/' $unit s15
plant R1 "what a greeting says of arrivals is not applied" $native \
    's/let _ = self\.outbox\.on_greeting\(self\.now, report\.as_ref\(\), greeting\.win\);/let _ = report;/' $unit native
plant R4 "after a loss nothing is in doubt" core/src/marks.rs \
    's/seq\.get\(\) < self\.doubt\.get\(\)/false \&\& seq.get() < self.doubt.get()/' $twin
plant R5 "a gap is passed over in silence" core/src/marks.rs \
    '/fn miss\(/,/^    \}/s/Some\(\(from, to, count\)\)/None/g' $unit marks
plant R5 "what a former self left waits for ever" $native 's/self\.inbox\.disown\(\);//' $unit native
plant R5 "a former self's answer counts for the new one" $native \
    's/let former = now < native\.former_until;/let former = false;/' $unit native
plant R1 "a greeting that was overtaken counts" $native 's/if http \&\& same \&\& self\.live/if false \&\& self.live/' $unit native
plant R9 "an old token is a lost session" $native 's/needs_handshake\(\) \&\& !greet \&\& !live =>/needs_handshake() \&\& !greet =>/' $unit native
plant I3 "an older epoch is believed" $native 's/of\.epoch\(\) > greeting\.origin\.epoch\(\)/false/' $unit native
plant S7 "marks of what was never sent are believed" $window \
    's/slot\.open\(\) && never_sent\(slot\) && report/false \&\& report/' $unit window
plant S8 "what was given back is not asked for" core/src/marks.rs \
    '/pub fn given_back/,/^    \}/s/self\.arrived \&= !bit;//' $unit marks
plant S9 "nothing waits for its turn" core/src/marks.rs 's/if !self\.order \|\| seq < self\.next/if true/' $unit marks
plant H3 "a poll that was replaced is not answered" $native \
    's/let taken = self\.native\.as_ref\(\)\.is_some_and\(\|native\| native\.superseded\.is_none\(\)\);/let taken = true;/' $unit native
plant H3 "an empty answer is asked after at once" $native 's/if !known \{/if false {/' $unit native
plant G9 "the delayed acknowledgement is not announced" core/src/marks.rs 's/see\(Wake::Acknowledge, \&self\.due\);//' $twin

plant L10 "a library's pong is the program's word" core/src/session.rs \
    's/Self::Pong \| Self::Other \| Self::Malformed => None/_ => Some(Word::Other)/' $unit l10
plant L10 "a dead program is dropped without a close" core/src/link.rs \
    's/\} else if reason == Reason::Mute \{/} else if false {/' $unit l10
plant L10 "an idle connection is cut before data was seen" core/src/heartbeat.rs \
    's/self\.expected\.unwrap_or\(self\.seen\)/self.expected.unwrap_or(true)/' $unit l10
plant L10 "data that was seen is forgotten with its connection" core/src/session.rs \
    's/self\.watch = live\.beat\.data_watch\(\);//' $unit l10
plant L10 "an idle connection is cut as often as one that brings data" core/src/heartbeat.rs 's/1 << cuts/1/' $unit l10
plant L1 "a peer that is at work is dead after an ordinary silence" core/src/heartbeat.rs \
    's/self\.config\.dead\.max\(work\)/self.config.dead/' $unit l1_
plant L10 "the application's word about data is not heard" core/src/heartbeat.rs \
    's/self\.watch\.expected != Some\(data\)/false/' $unit l10
plant L10 "the data deadline is not announced" core/src/heartbeat.rs 's/see\(Wake::Program, &self\.data\);//' \
    cargo test -q -p bowline-tests --test sim_scenarios l10
plant L3 "a doubt asks the program alone" core/src/heartbeat.rs \
    's/let both = matches!\(self\.config\.program, ProgramLife::Answers\(_\)\);/let both = false;/' $unit l12
plant L11 "bytes under way are no excuse" core/src/heartbeat.rs 's/ahead\.min\(UNSEEN\)/0/' $unit l11
plant L11 "a question that cannot leave is overdue" core/src/heartbeat.rs \
    's/if !yes && self\.due\.is_armed\(\)/if false/' $unit l11
plant L11 "a frame that comes in slowly is silence" core/src/session.rs \
    's/Self::Numbered \{ \.\. \} \| Self::Part => Some/Self::Numbered { .. } => Some/; s/Self::Pong \| Self::Other/Self::Part | &/' \
    $unit l11
plant L12 "all at once after a dead program" core/src/session.rs \
    's/let holds = live\.alternates/let holds = false \&\& live.alternates/' $unit l12
plant L12 "no question behind a message" core/src/session.rs \
    's/== Proof::Pong \|\| live\.alternates;/== Proof::Pong;/' $unit l12

# An hour of every answer, in virtual time.
hour='cargo test -q -p bowline-tests --test refusals'
plant B10 "a refusal is the end" core/src/reason.rs \
    's/(Status\(200, 407\), RetryClass::)Refused/\1Terminal/' $hour
plant B10 "a refused path is tried as often as one that is down" core/src/link.rs \
    's/next_up_to\(self\.config\.blocked, hint, rng\)/next(hint, rng)/' $hour
plant B10 "the end that an application wants is not announced" core/src/link.rs \
    's/see\(Wake::GiveUp, &self\.give_up\);//' $unit link
plant B11 "greetings and polls are outside of every back-off" core/src/session/native.rs \
    's/self\.route\.posted\(now, kind, outcome, &mut self\.rng\);/let _ = kind;/' $hour
plant B11 "the success of another kind of request clears the back-off" core/src/route.rs \
    's/self\.failing &= !kind\.bit\(\);/self.failing = 0;/' $unit route
plant B11 "a go-between's answer proves the path" core/src/route.rs \
    's/if outcome\.by_peer\(\) && !self\.http_waits\(\)/if !self.http_waits()/' $unit route
plant H9 "repetitions cost nothing" core/src/route.rs 's/self\.repeat\.arm\(now\.after\(next\)\);//' $hour
plant P5 "what has failed is not revived" core/src/link.rs \
    's/Phase::Waiting \{ \.\. \} \| Phase::Failed => self\.connect\(now\),/Phase::Waiting { .. } => self.connect(now), Phase::Failed => {}/' $unit session

# One for each of the ways in which the field has stopped us.
plant S13 "places are freed from the head only" core/src/outbox.rs \
    's/if self\.ring\.get\(offset\)\.is_some_and\(Slot::over\)/if offset == 0 \&\& self.ring.get(offset).is_some_and(Slot::over)/' \
    $every
plant H8 "a go-between's 200 is a delivery" core/src/reason.rs 's/\(200\.\.=299, true\) =>/(200..=299, _) =>/' $every
plant B10 "refused twice is refused for ever" core/src/link.rs 's/^        if self\.gives_up\(\) \{/        if self.refusals > 1 {/' $every
# Either alone stops the loop.
plant B11 "a path that fails is asked in a loop, without H9" core/src/route.rs \
    's/self\.config\.http \&\& !self\.http_waits\(\) \&\& underway/self.config.http \&\& underway/; s/!self\.repeat\.is_armed\(\) \&\& /true \&\& /' \
    $every
plant L10 "the program is not asked" core/src/heartbeat.rs 's/self\.word\.ask\(now, limit.*;//' $every
plant T8 "all waits begin at once" core/src/outbox.rs \
    's/\&\& slot\.turn\(\) <= last$//; s/if self\.awaited == 1 \{/if true {/' $every
plant L13 "an acceptor that closes turns its peer away" core/src/session.rs \
    's/if self\.finished\(\) \{ Accepted::Refused \}/if self.closing { Accepted::Refused }/' $every

topics=core/src/hub/topics
plant U4 "a gap is not told" $topics/mod.rs \
    's/if subscription\.astray \|\| subscription\.cursor < first/if subscription.astray/' $unit hub::topics
plant U4 "a place that was never given is believed" $topics/subscribers.rs \
    's/Start::After\(_\) => \(first, true\)/Start::After(_) => (first, false)/' $unit hub::topics
plant U4 "a topic that was forgotten begins anew" $topics/mod.rs \
    's/self\.floor = self\.floor\.max\(topic\.next\);//' $unit hub::topics
plant U4 "two filters, two subscriptions" $topics/mod.rs \
    's/if self\.subscription\(member, topic\)\.is_some\(\)/if false/' $unit hub::topics
plant U4 "a name taken back takes the filter with it" $topics/subscribers.rs \
    's/!subscription\.named && !self\.wants\(member, subscription\.topic\)/!subscription.named/' $unit hub::topics
plant U4 "whoever is away is forgotten by publishing" $topics/mod.rs \
    '/let member = subscription\.member;/{n;s/self\.enqueue\(index\);//}' $unit hub::topics
plant U4 "a subscription goes with the connection" core/src/hub/admission.rs \
    's/self\.member_connected\(key, false\);/self.member_leaves(key);/' $unit hub
plant U4 "publishing looks at every session" $topics/hub.rs \
    's/let peers = &mut hub\.peers;/let _ = hub.sessions().count(); &/' $unit hub
plant U4 "a session goes on being told present after its end" core/src/hub/turn.rs \
    's/^            self\.member_leaves\(key\);//' $unit hub
plant G9 "the age of what topics hold is not announced" core/src/hub/mod.rs 's/, log, topics, drain\]/, log, drain]/' $unit hub

# What is told of an ending is decided beside the core.
told='cargo test -q -p bowline-transport --features hub --lib'
explanation=adapters/transport/src/explanation.rs
answer=adapters/transport/src/http/answer.rs
plant E1 "a resolver that is silent is taken for one that says no" $explanation \
    's/if for_now \{ Reason::LookupFailed \}/if false { Reason::LookupFailed }/' $told e1_
plant E1 "an answer of a go-between is the peer's" $answer \
    's/\} else if self\.is_of_a_go_between\(\) \{/} else if false {/' $told e1_
plant E2 "a peer writes into the terminal" $explanation 's/if c\.is_control\(\) \|\| is_invisible\(c\)/if false/' $told e2_
plant E2 "a text has any length" $explanation 's/let most = Excerpt::LONGEST - REST\.len\(\);/let most = line.len();/' $told e2_
plant E2 "the beginning of a secret is left at the cut" $explanation \
    's/if let Some\(kept\) = text\.strip_suffix\(REST\)/if let Some(kept) = None::<\&str>/' $told e2_
plant E3 "a message of a native client that is turned away is not told" core/src/session.rs \
    '/outcome\.needs_handshake\(\) \&\& self\.native/,/self\.forgotten/s/self\.request_ended\(Some\(post\.seq\), outcome\);//' $unit e3_
plant E3 "failures are told together" adapters/transport/src/engine.rs \
    '/fn posted/,/^    \}/s/self\.drain\(\);//' $told e3_
plant P5 "the word to try now is lost while a connection closes" core/src/link.rs \
    's/_ if urged =>/_ if false =>/' $unit p5_
plant E3 "what was said is not told" adapters/transport/src/engine.rs \
    's/Event::Down \{ reason, \.\. \} => self\.websocket\.failed\(reason\)/Event::Down { .. } => None/' $told e3_
plant E4 "whom nobody was told of is forgotten" adapters/transport/src/hub/tell_limit.rs \
    's/self\.untold = self\.untold\.saturating_add\(1\);//' $told e4_
plant E4 "one address hides all others" adapters/transport/src/hub/tell_limit.rs \
    's/share\.take\(now, ADDRESS, COST\)\.is_ok\(\)/{ let _ = share; true }/' $told tell_limit
plant E4 "one reason hides all others" adapters/transport/src/hub/tell_limit.rs \
    's/\*\*reason == why/true/' $told tell_limit
plant U8 "the parts of a frame cost messages" core/src/hub/traffic.rs 's/if head == Head::Part \{/if false {/' $unit u8_

# Only the peer's own word (H8), too large on one path alone (F4), time for bytes and for thinking (H10).
client=adapters/transport/src/http/client.rs
asked='cargo test -q -p bowline-transport --lib http::answer'
plant H8 "a portal's 200 delivers" core/src/reason.rs \
    's/\(200\.\.=299, true\) => HttpClass::Delivered/(200..=299, _) => HttpClass::Delivered/' $unit reason
plant H8 "a proxy's 422 rejects" core/src/reason.rs \
    's/\(400 \| 410 \| 413 \| 422, true\) => HttpClass::Rejected/(400 | 410 | 413 | 422, _) => HttpClass::Rejected/' $unit reason
plant H8 "a page is taken for a program's answer" $answer 's/200\.\.=299 => self\.is_marked\(\),/200..=299 => true,/' $asked
plant H8 "another program's JSON is taken for the original's answer" $answer \
    's/200\.\.=299 => self\.is_marked\(\),/200..=299 => self.json().is_some(),/' $asked
plant H8 "a gateway's JSON is taken for the original's error" $answer \
    's/said\.len\(\) == 1 \&\& said\.contains_key\("error"\)/!said.is_empty()/' $asked
plant H8 "an empty page is taken for the original's answer" $answer \
    's/self\.whole \&\& self\.is_said_to_be_json\(\),/self.whole,/' $asked
plant F4 "413 on the way is posted again and again" core/src/outbox.rs \
    's/self\.refused_post = self\.refused_post\.min\(size\);/let _ = size;/' $unit f4_
plant F4 "what HTTP refused never goes over the connection" core/src/outbox.rs \
    's/\|slot\| slot\.by_http = slot\.size > limit\)/|slot| slot.by_http = true)/' $unit f4_
plant F4 "what both paths refuse is kept for ever" core/src/session.rs \
    's/if outcome\.class\(\) == HttpClass::TooLarge \{/if false {/' $unit f4_
sockets='cargo test -q -p bowline-transport --test http_smol h10_'
plant H10 "one deadline over the whole upload" $client \
    's/self\.deadline\.restart_until\(self\.timeouts\.progress, self\.until\);//' $sockets
plant H10 "the peer may think no longer than a byte may take" $client \
    's/self\.deadline\.restart\(self\.timeouts\.thinking.*;/self.deadline.restart(self.timeouts.progress);/' $sockets
plant H10 "a body that moves at 20 kB/s is given up" adapters/transport/src/http/mod.rs \
    's/SLOWEST_BODY: u64 = 16_000/SLOWEST_BODY: u64 = 64_000/' $sockets

# Planted from outside, these survived every test there was.
hub_native=adapters/transport/src/hub/engine/native.rs
server=adapters/transport/src/http/server.rs
plant B4 "the larger of a server's hint and the draw" core/src/backoff.rs \
    's/floor\.saturating_add\(draw\)/floor.max(draw)/' $unit backoff
plant B4 "when to poll again is not heard" core/src/route.rs \
    's/let hint = RetryHint::after\(outcome\.after\(\)\);/let hint = RetryHint::after(if message { outcome.after() } else { Duration::ZERO });/' \
    $unit native
plant P5 "the word to try now leaves a question to its rest" $native \
    's/if matches!\(native\.talk, Talk::Rest \{ \.\. \}\) \{/if false {/' $unit native
plant H3 "a poll waits as long as the client says" $native 's/let wait = wait\.min\(native\.config\.poll\);//' $unit native
plant H3 "any wait is read" core/src/wire/native/decode.rs 's/if wait > MAX_WAIT \{/if false {/' \
    cargo test -q -p bowline-tests --test native_vectors
plant H1 "the key of a request is another message's" $hub_native 's/if number == seq => \{\}/if number.get() > 0 => {}/' $told h1_
plant R9 "a welcome by HTTP makes a connection unready" adapters/transport/src/wire/native.rs \
    's/^ *self\.ready = ready;//' $told r9_
plant R9 "a welcome by HTTP makes a connection ready" adapters/transport/src/wire/native.rs \
    's/^( *)self\.ready = ready;/\1self.ready = true;/' $told r9_
plant H6 "a flood after the last answer has no end" $server 's/left -= read;//' $told h6_
plant G4 "any number of bytes waits at the application" adapters/transport/src/engine.rs \
    's/self\.held_bytes\.saturating_add\(more\) > HELD_BYTES/false/' $told g4_so_many
plant H11 "the first of two hosts counts" $server 's/\.iter\(\)\.nth\(1\)\.is_some\(\)/.iter().nth(2).is_some()/' $told h11_

# The time of what is given back (S16), and when a state says that HTTP carries (F8).
plant S16 "what was given back is handed over again at once" core/src/inbox.rs \
    's/is_some_and\(\|until\| until <= now\)/is_some_and(|until| until >= Instant::ZERO \&\& now >= Instant::ZERO)/' $unit s16

plant S16 "who polls is brought what it gave back in a loop" $native \
    's/Verdict::Retry \{ \.\. \} if polls =>/Verdict::Retry { .. } if false \&\& polls =>/' $unit s16_
plant S16 "what came too soon is not asked for with what is left" $native \
    's/if full \{ AGAIN \} else \{ left \}/AGAIN/' $unit s16_
plant S16 "what was kept is never asked for" $native 's/filter\(\|seq\| native\.marks\.keeps\(\*seq\)\)/filter(|_| false)/' $unit s16_
plant S16 "the hint of one message delays the path" core/src/inbox.rs \
    's/Self::Again \{ \.\. \} => 409,/Self::Again { .. } => 503,/' $unit s16_
plant S16 "zero is no time at all" core/src/inbox.rs 's/if after\.is_zero\(\) \{ SOON \} else \{ after \}/after/' $unit s16_
plant F8 "a path that nobody has asked carries" core/src/route.rs 's/self\.carries \&\& !self\.http_failing/!self.http_failing/' $unit f8_
plant F8 "what carried the last time carries" core/src/route.rs \
    '/self\.path = Path::Http;/{n;s/self\.carries = false;//}' $unit f8_

# What silences a hub, and each in its dialect (N3).
plant L12 "what made the hub mute is said again" core/src/session.rs 's/if fell_silent \&\& asks \{/if false {/' $unit l12_
plant L12 "the others are sent again all at once" core/src/session.rs \
    's/self\.mute \|= self\.outbox/let _ = self.outbox/' $unit l12_
codec='cargo test -q -p bowline-tests --test aivillage_vectors'
plant N3 "a topic has one name" core/src/wire/aivillage/encode.rs \
    '/struct Words/,/^\}/s/    channel: /    #[serde(skip)]\n    channel: /' $codec
plant N3 "a sibling's frame is taken for an envelope" core/src/wire/aivillage/decode.rs 's/ \&\& enveloped\(\)/ \&\& (true || enveloped())/' $codec

# How often the system is called: reads for what comes together, writes for what is sent together.
calls='cargo test -q -p bowline-transport --features hub --test system_calls'
plant U5 "a text keeps the read buffer, and each frame is a read" adapters/transport/src/hub/line.rs \
    's/if text\.len\(\) <= COPIED/if false/' $calls
plant U5 "each broadcast is a write to each" adapters/transport/src/hub/mod.rs \
    '/fn publish_to/,/^    \}/s/with_turn/with/' $calls
plant U5 "nobody is asked for the turn that writes" adapters/transport/src/hub/mod.rs \
    '/fn with_turn/,/^    \}/s/if wake/if false \&\& wake/' $calls
plant U5 "a line is asked for one turn and never again" adapters/transport/src/hub/engine/output.rs \
    's/self\.turn_asked = false;//' $calls
plant U5 "what a full line has taken is not watched" adapters/transport/src/hub/mod.rs \
    's/engine\.unsent\(unsent\)/{ let _ = (engine, unsent); }/' $calls

# The room for what peers have sent (U12), and what is told of a place there is not (U13) or a route (U14).
held=core/src/hub/held.rs
for test in "$unit u12_" "$model"; do
    plant U12 "no limit of held bytes" $held 's/is_some_and\(\|left\| own <= left \/ SHARE\)/is_none_or(|left| left < u64::MAX)/' $test
    plant U12 "one identity may have all there is" $held 's/own <= left \/ SHARE/own <= left.max(own)/' $test
    plant U12 "there are no equal parts" $held 's/own <= part/own > u64::MAX - part/' $test
done
plant U12 "a copy of what is remembered finds no room" $held \
    's/return peer\.session\.knows\(self\.now, id, content\)/return false/' $unit u12_a_copy
plant U12 "what waits for its turn keeps out the message whose turn it is" $held \
    's/peer\.give_back \|= .*;//' $unit u12_what_waits
plant U12 "what waits for its turn waits as long as its session lives" $held \
    's/peer\.turns\.arm\(self\.now\.after\(dead\)\);/let _ = dead;/' $unit u12_what_waits
plant U14 "a hub without guarded routes is built" adapters/transport/src/hub/request.rs \
    's/wire\.guarded \|\| !\(websocket/true || !(websocket/' \
    cargo test -q -p bowline-transport --features hub --lib u14_
plant U13 "a connection without a place gets no time to come back" adapters/transport/src/http/server.rs \
    's/retry_after: Some\(Duration::from_secs\(1\)\), error: None/retry_after: None, error: None/' \
    cargo test -q -p bowline-transport --test http_smol u13_

[ $missed = 0 ] && echo "all caught" || { echo "$missed not caught"; exit 1; }
