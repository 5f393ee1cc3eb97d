# The Python environment of the tests and ./stack. It is kept outside the clone and named after the pinned versions, so that
# other clones reuse it.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/packshot
VENV := $(CACHE)/venv-$(shell cksum < requirements.txt | tr -c '0-9\n' -)

.PHONY: test soak invoke build-lambda bench bench-check deploy destroy lint-deps sbom

# Runs everything: format, lints, unit tests, contracts, simulation, and the template deployed on a local AWS.
test: .venv
	@CARGO_TARGET_DIR="$${CARGO_TARGET_DIR:-$(CACHE)/target}" PATH="$(CURDIR)/.venv/bin:$$PATH" scripts/test

# 100,000 simulated runs; a failure prints the seed that replays it.
soak:
	cargo run --release --quiet -p packshot-simulation -- --seed 1 --runs 100000

.venv: requirements.txt
	@test -e $(VENV)/complete || { echo "Installing requirements.txt into $(VENV) ..."; rm -rf $(VENV) \
		&& python3 -m venv $(VENV) && $(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt \
		&& touch $(VENV)/complete; }
	@ln -sfn $(VENV) .venv && touch $(VENV)

# Sends one event to one function under cargo lambda and prints the answer. Starts what is missing and ends what it started.
# Example: make invoke FUNCTION=generator EVENT=events/generator-batch.json
invoke: .venv
	@.venv/bin/python scripts/invoke.py $(FUNCTION) $(EVENT) $(if $(TIMEOUT),--timeout $(TIMEOUT)) $(if $(STATE_DIR),--state-dir $(STATE_DIR))

# Takes entropy from the operating system. Otherwise the first TLS handshake of a process collects it from CPU jitter, which takes
# 25 ms, and a third of a second on a function of 128 MB.
build-lambda bench: export AWS_LC_SYS_NO_JITTER_ENTROPY = 1

# Builds the functions for AWS, under target/lambda/; add ARCH=--arm64 for the template's Architecture=arm64.
build-lambda: .venv
	PATH="$(CURDIR)/.venv/bin:$$PATH" cargo lambda build --locked --profile lambda $(ARCH) \
		-p packshot-splitter -p packshot-generator -p packshot-merger

# Deploys to the configured AWS account. The first time, asks for the missing settings; saves them in samconfig.toml, and the API key
# in a secret. SET="Parameter=value ..." sets parameters of template.yaml; STACK and REGION choose the stack; ARCH=--arm64 as above.
CHOICE = $(if $(STACK),--stack $(STACK)) $(if $(REGION),--region $(REGION))
BOOTSTRAPS = $(or $(CARGO_TARGET_DIR),target)/lambda
deploy: build-lambda
	@.venv/bin/python scripts/deploy.py deploy $(CHOICE) --bootstraps $(BOOTSTRAPS) $(if $(ARCH),--set Architecture=arm64) \
		$(foreach pair,$(SET),--set $(pair))

# Deletes the stack and keeps the bucket. DATA=delete asks for the bucket's name and deletes it, too.
destroy: .venv
	@.venv/bin/python scripts/deploy.py destroy $(CHOICE) $(if $(DATA),--data $(DATA)) $(if $(YES),--yes)

# Checks licences, sources, the dependencies between crates, and known vulnerabilities; part of `make test`.
lint-deps: .venv
	@PATH="$(CURDIR)/.venv/bin:$$PATH" scripts/lint-deps

# Writes the components of each executable as CycloneDX 1.5, under target/sbom/.
sbom:
	@test -x $(CACHE)/cargo-cyclonedx/bin/cargo-cyclonedx || CARGO_TARGET_DIR=$(CACHE)/cargo-cyclonedx/target \
		cargo install --quiet --locked --root $(CACHE)/cargo-cyclonedx --version 0.5.9 cargo-cyclonedx
	@PATH="$(CACHE)/cargo-cyclonedx/bin:$$PATH" cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --target all
	@rm -f benches/*.cdx.json && mkdir -p target/sbom && for sbom in cli/*_bin.cdx.json functions/*/*_bin.cdx.json; do \
		mv $$sbom target/sbom/$$(basename $$sbom _bin.cdx.json).cdx.json; done; ls target/sbom/*

# Measures each case beside its baseline; prints a table and writes target/bench.json. See benches/README.md; BENCH takes flags.
TARGET = $(or $(CARGO_TARGET_DIR),target)
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
BENCHED = -p packshot-splitter -p packshot-generator -p packshot-merger -p packshot-benches

bench:
	cargo build --profile measured -p packshot $(BENCHED) --bins
# With a target, because cargo-lambda makes directories of the same names under target/lambda.
	cargo build --profile lambda --target $(HOST) $(BENCHED) --bin splitter --bin generator --bin merger --bin minimal-lambda
	$(TARGET)/measured/bench run --binaries $(TARGET)/measured --bootstraps $(TARGET)/$(HOST)/lambda $(BENCH)

# Fails if a ratio is 20 % worse than the committed one. Not part of `test`: it needs a quiet machine.
bench-check: BENCH = --compare benches/baseline.json
bench-check: bench
