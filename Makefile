# Build output and downloads stay outside the checkout.
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/millrace
export CARGO_TARGET_DIR ?= $(CACHE)/target
BIN := $(CARGO_TARGET_DIR)/release/millrace
CARGO := cargo
# One profile for everything, so that nothing is built twice.
BUILD := --release --locked

OBP := $(CACHE)/obp-0.4.1
DEMO_DATA := $(CACHE)/demo
FUZZ_SECONDS ?= 60
export MILLRACE_VERSITYGW ?= $(CACHE)/bin/versitygw

.PHONY: help build demo demo-open-bandit bench-shop bench-serving bench-siege sim test page-test lint fmt crds bench fuzz clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

build: toolchain ## Build the millrace binary
	$(CARGO) build $(BUILD) -p millrace

.PHONY: toolchain
toolchain:
	@command -v $(CARGO) >/dev/null || { echo "error: cargo is not installed; Rust 1.95 or newer is needed" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "error: no C linker (cc); install gcc or clang" >&2; exit 1; }

demo: toolchain ## The simulated shop, live, with its page on 127.0.0.1:8080 (RATE USERS ITEMS SEED SCENARIO FOR OUTPUT)
	$(CARGO) build $(BUILD) -p millrace -p millrace-shop
	BIN=$(dir $(BIN)) DATA=$(DEMO_DATA) sh examples/shop/demo.sh

bench-shop: toolchain ## What decisions learn in the simulated shop, in virtual time: all scenarios (SEEDS, DAYS)
	$(CARGO) build $(BUILD) -p millrace-shop
	$(dir $(BIN))shop bench --seeds $(or $(SEEDS),2) --days $(or $(DAYS),12)

bench-serving: toolchain ## Decisions beside 5,000 events/s: how long they take, and how fresh they are (RATE ITEMS FOR PROBES)
	$(CARGO) build $(BUILD) -p millrace -p millrace-shop
	BIN=$(dir $(BIN)) DATA=$(DEMO_DATA) RATE=$(or $(RATE),5000) ITEMS=$(or $(ITEMS),100) FOR=$(or $(FOR),60s) PROBES=$(or $(PROBES),20) sh examples/shop/demo.sh

bench-siege: build ## Decisions while ten thousand connections and wrong requests besiege the worker
	$(CARGO) run $(BUILD) -p millrace-e2e --example bench_siege

demo-open-bandit: build $(OBP)/.complete ## Run the Open Bandit example on real data (about 20 seconds)
	rm -rf $(DEMO_DATA)
	$(BIN) run examples/open-bandit/pipeline.yaml --until-end --max-rate 1000 --data $(DEMO_DATA) \
	  --source 'recommendations=$(OBP)/obp/dataset/obd/*/all/all.csv'

# The Open Bandit data, as the package index has it.
$(OBP)/.complete:
	@command -v python3 >/dev/null || { echo "error: python3 with pip is needed to obtain the data" >&2; exit 1; }
	mkdir -p $(OBP)
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest $(OBP) obp==0.4.1
	cd $(OBP) && python3 -m zipfile -e obp-0.4.1-*.whl . && touch .complete

# A Kafka broker, as Maven Central has it.
KAFKA := $(CACHE)/kafka
export MILLRACE_KAFKA := $(KAFKA)
KAFKA_PORT ?= 9092
KAFKA_DATA ?= $(CACHE)/kafka-data

.PHONY: kafka-jars kafka-up kafka-down demo-kafka
kafka-jars: $(KAFKA)/.complete

$(KAFKA)/.complete: examples/kafka/broker/pom.xml
	@command -v mvn >/dev/null || { echo "error: mvn and java (17 or newer) are needed for the Kafka broker of the tests" >&2; exit 1; }
	rm -rf $(KAFKA)
	mvn -q -B -ntp -f examples/kafka/broker/pom.xml dependency:copy-dependencies -DoutputDirectory=$(KAFKA) -DincludeScope=runtime
	touch $@

kafka-up: $(KAFKA)/.complete ## Start a Kafka broker on 127.0.0.1 (KAFKA_PORT, KAFKA_DATA)
	sh examples/kafka/broker/up.sh $(KAFKA_PORT) $(KAFKA_DATA)

demo-kafka: build kafka-up ## Run a small pipeline over topics of the broker of kafka-up
	BIN=$(BIN) DATA=$(DEMO_DATA)-kafka SERVER=127.0.0.1:$(KAFKA_PORT) sh examples/kafka/try.sh

kafka-down: ## Stop it
	sh examples/kafka/broker/down.sh $(KAFKA_DATA)

# The same personalization as a job of Apache Flink, with its generator and its checks.
PEER_JOB := $(CACHE)/flink/job
PEER_SOURCES := $(shell find e2e/peers/flink/src -type f) e2e/peers/flink/pom.xml

$(PEER_JOB)/.complete: $(PEER_SOURCES)
	@command -v mvn >/dev/null || { echo "error: mvn and java (17 or newer) are needed for the Flink job" >&2; exit 1; }
	mvn -q -B -ntp -f e2e/peers/flink/pom.xml -Dout=$(PEER_JOB) package
	touch $@

.PHONY: bench-flink
bench-flink: build kafka-jars $(PEER_JOB)/.complete ## Beside Apache Flink: one topic drained by both, then both killed (EVENTS, ROUNDS)
	for part in bench recover; do \
	  BIN=$(BIN) CACHE=$(CACHE) EVENTS=$(or $(EVENTS),3000000) ROUNDS=$(or $(ROUNDS),5) sh e2e/peers/flink/$$part.sh || exit 1; done

.PHONY: bench-fresh
bench-fresh: build kafka-jars ## How soon an event counts, and what a steady stream costs (RATE=5000, SECONDS=30)
	$(CARGO) build $(BUILD) -p millrace-e2e --example bench_fresh
	RATE=$(or $(RATE),5000) SECONDS=$(or $(SECONDS),30) $(dir $(BIN))examples/bench_fresh

.PHONY: bench-moves
bench-moves: build kafka-jars versitygw ## What moves cost while events flow through a fleet (RATE=20000, MOVES=6)
	$(CARGO) build $(BUILD) -p millrace-e2e --example bench_moves
	RATE=$(or $(RATE),20000) MOVES=$(or $(MOVES),6) $(dir $(BIN))examples/bench_moves

sim: toolchain ## A whole fleet with crashes and lies, simulated (SEEDS=1000, or SEED=42 TRACE=1; PLANTED=1: known bugs must be caught)
	$(CARGO) build $(BUILD) -p millrace-sim $(if $(PLANTED),--features planted)
	$(dir $(BIN))millrace-sim $(if $(PLANTED),--planted --seeds $(or $(SEEDS),1000),$(if $(SEED),--seed $(SEED) $(if $(TRACE),--trace),--seeds $(or $(SEEDS),1000)))

test: build kafka-jars versitygw ## Run all tests
	$(CARGO) test $(BUILD) --workspace
	$(MAKE) page-test

.PHONY: soak
soak: build kafka-jars versitygw ## A fleet over a real broker and store, with mishaps, and without them for minutes (MISHAPS=200 or MINUTES=30, SEED=1)
	$(if $(MINUTES),MINUTES=$(MINUTES),MISHAPS=$(or $(MISHAPS),200)) SEED=$(or $(SEED),1) $(CARGO) test $(BUILD) -p millrace-e2e --test fleet -- --ignored --nocapture --test-threads 1

# A server that speaks S3, for tests.
.PHONY: versitygw
versitygw: $(MILLRACE_VERSITYGW)

$(MILLRACE_VERSITYGW):
	@command -v go >/dev/null || { echo "error: go is not installed; it builds versitygw, a server for tests" >&2; exit 1; }
	GOBIN=$(dir $@) go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

page-test: ## Test the worker's page in headless Chromium (installs it from Debian if missing and root)
	CACHE=$(CACHE) sh e2e/page/run.sh

lint: toolchain ## Check formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(BUILD) --workspace --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

crds: ## Write crds/yaml from the Rust types
	$(CARGO) run $(BUILD) -p millrace-crds --bin crds -- crds/yaml

bench: build ## Benchmarks of decode, profile task, learner (beside Vowpal Wabbit) and an idle worker
	$(CARGO) run $(BUILD) -p millrace-engine --example bench_decode
	$(CARGO) run $(BUILD) -p millrace-engine --example bench_features
	$(CARGO) run $(BUILD) -p millrace-engine --example bench_profile
	CACHE=$(CACHE) sh e2e/peers/learners/bench.sh
	$(CARGO) run $(BUILD) -p millrace-engine --example bench_learn memory < $(CACHE)/learners/data/stream.tsv
	$(CARGO) run $(BUILD) -p millrace-engine --example bench_learn model < $(CACHE)/learners/data/stream.tsv
	sh e2e/peers/idle.sh $(BIN)

fuzz: ## Fuzz every decoder for FUZZ_SECONDS each
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	for target in frame event checkpoint yaml; do \
	  $(CARGO) fuzz run -s none $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

clean: ## Remove build output and downloads
	rm -rf $(CACHE)
