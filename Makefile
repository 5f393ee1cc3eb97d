# What the tests and ./stack run on. Kept outside the clone and named after the pinned versions, so that the next clone and
# the next run find it.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/packshot
VENV := $(CACHE)/venv-$(shell cksum < requirements.txt | tr -c '0-9\n' -)

.PHONY: test soak build-lambda bench bench-check deploy destroy lint-deps sbom

# Everything: format, lints, unit tests, contracts, simulation, and the template deployed on a local AWS.
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

# Otherwise the first TLS handshake of a process gathers entropy from the CPU's jitter for 25 ms, on a 128 MB function a third of
# a second. The operating system's is what everybody else uses.
build-lambda bench: export AWS_LC_SYS_NO_JITTER_ENTROPY = 1

# The release bootstraps for AWS, under target/lambda/; add ARCH=--arm64 for the template's Architecture=arm64.
build-lambda: .venv
	PATH="$(CURDIR)/.venv/bin:$$PATH" cargo lambda build --locked --profile lambda $(ARCH) \
		-p packshot-splitter -p packshot-generator -p packshot-merger

# Into the AWS account that is configured. Asks what it needs the first time and keeps it in samconfig.toml, the key in a secret.
# SET="Parameter=value ..." sets parameters of template.yaml; STACK and REGION choose; ARCH=--arm64 as above.
CHOICE = $(if $(STACK),--stack $(STACK)) $(if $(REGION),--region $(REGION))
BOOTSTRAPS = $(or $(CARGO_TARGET_DIR),target)/lambda
deploy: build-lambda
	@.venv/bin/python scripts/deploy.py deploy $(CHOICE) --bootstraps $(BOOTSTRAPS) $(if $(ARCH),--set Architecture=arm64) \
		$(foreach pair,$(SET),--set $(pair))

# Keeps the bucket, and with it everything that was paid for. DATA=delete asks for the bucket's name and deletes it, too.
destroy: .venv
	@.venv/bin/python scripts/deploy.py destroy $(CHOICE) $(if $(DATA),--data $(DATA)) $(if $(YES),--yes)

# Licences, sources, borders, known vulnerabilities; part of `make test`.
lint-deps: .venv
	@PATH="$(CURDIR)/.venv/bin:$$PATH" scripts/lint-deps

# What each executable is made of, as CycloneDX 1.5, under target/sbom/.
sbom:
	@test -x $(CACHE)/cargo-cyclonedx/bin/cargo-cyclonedx || CARGO_TARGET_DIR=$(CACHE)/cargo-cyclonedx/target \
		cargo install --quiet --locked --root $(CACHE)/cargo-cyclonedx --version 0.5.9 cargo-cyclonedx
	@PATH="$(CACHE)/cargo-cyclonedx/bin:$$PATH" cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --target all
	@rm -f benches/*.cdx.json && mkdir -p target/sbom && for sbom in cli/*_bin.cdx.json functions/*/*_bin.cdx.json; do \
		mv $$sbom target/sbom/$$(basename $$sbom _bin.cdx.json).cdx.json; done; ls target/sbom/*

# Each case beside its floor, as a table and as target/bench.json. See benches/README.md; BENCH takes further flags.
TARGET = $(or $(CARGO_TARGET_DIR),target)
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
BENCHED = -p packshot-splitter -p packshot-generator -p packshot-merger -p packshot-benches

bench:
	cargo build --release -p packshot $(BENCHED) --bins
# With a target, because cargo-lambda keeps directories of the same names under target/lambda.
	cargo build --profile lambda --target $(HOST) $(BENCHED) --bin splitter --bin generator --bin merger --bin minimal-lambda
	$(TARGET)/release/bench run --binaries $(TARGET)/release --bootstraps $(TARGET)/$(HOST)/lambda $(BENCH)

# Fails where a ratio is 20 % worse than the committed one. Not part of `test`: it wants a quiet machine.
bench-check: BENCH = --compare benches/baseline.json
bench-check: bench
