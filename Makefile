# One command for each chore; each is a script in scripts/, for machines without make.
.PHONY: attacks client-faults client-peers list-streams live-memory mutants dev test quick fmt check conformance lint package crash crash-maintenance power-loss tier-crashes disk-faults flips

dev: ; @scripts/dev
test: ; @scripts/test
quick: ; @QUICK=1 scripts/test
lint: ; @scripts/lint
fmt: ; @cargo fmt --all
check: ; @cargo clippy --workspace --all-targets --locked -- -D warnings
conformance: ; @tests/conformance/run memory

# kill -9 of the real binary under load, ROUNDS times.
ROUNDS ?= 300
crash: ; @CRASH_ROUNDS=$(ROUNDS) cargo test --locked --release --test crash kill:: -- --nocapture
# The same with verify, backup, restore, compact and repair between the kills, which are killed too.
MAINTENANCE_ROUNDS ?= 200
crash-maintenance: ; @MAINTENANCE_ROUNDS=$(MAINTENANCE_ROUNDS) cargo test --locked --release --test crash maintenance:: -- --nocapture
# The store on a simulated disk that loses its power, SEEDS times over.
SEEDS ?= 5000
power-loss: ; @STORE_CRASH_SEEDS=$(SEEDS) cargo test --locked --release -p durable-streams-engine --test store what_was_acknowledged -- --nocapture
# The same with segments that go to an object store, which fails too.
tier-crashes: ; @TIER_CRASH_SEEDS=$(SEEDS) cargo test --locked --release --lib -- lose_nothing_and_leave_nothing --nocapture
# A failure of each of the first OPERATIONS after a start: opens, creates, renames, allocations, writes, syncs and so on.
OPERATIONS ?= 200
disk-faults: ; @STORE_FAIL_OPERATIONS=$(OPERATIONS) cargo test --locked --release -p durable-streams-engine --test store one_failure -- --nocapture
# Single flipped bits in every kind of page and file, FLIPS times: none is silent, and every one is repaired.
FLIPS ?= 1000
flips: ; @STORE_FLIPS=$(FLIPS) STORE_FLIP_SEEDS=$(FLIPS) STORE_REPAIR_SEEDS=$(FLIPS) cargo test --locked -p durable-streams-engine --test store flip -- --nocapture
# The client through kill -9 and a bad network, FAULT_ROUNDS times.
FAULT_ROUNDS ?= 200
client-faults: ; @CLIENT_FAULT_ROUNDS=$(FAULT_ROUNDS) cargo test --locked --test client faults:: -- --nocapture
# The commands and the client against Electric's server, and the Caddy plugin where CADDY names one.
client-peers: ; @tests/clients/peers
# What another client notices of attacks, SECONDS_EACH of each; docs/security.md.
SECONDS_EACH ?= 60
attacks: ; @ATTACK_SECONDS=$(SECONDS_EACH) cargo test --locked --release --test attacks -- --nocapture
# Memory of an idle SSE reader in cleartext, over TLS and over HTTP/2, of LIVE_READERS.
LIVE_READERS ?= 2000
live-memory: ; @cargo build --locked --release --features otel && BINARY=$$PWD/target/release/durable-streams-server \
	LIVE_READERS=$(LIVE_READERS) cargo test --locked --features otel --test tls -- memory --nocapture
# What a page of the list of STREAMS streams costs; docs/admin.md.
STREAMS ?= 1000000
list-streams: ; @cargo run --locked --release -p durable-streams-engine --example list_streams -- $(STREAMS)
# Mutation testing of the protocol crate; docs/testing.md.
mutants: ; @scripts/mutants
