# What the tests and ./stack run on. Kept outside the clone and named after the pinned versions, so that the next clone and
# the next run find it.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/packshot
VENV := $(CACHE)/venv-$(shell cksum < requirements.txt | tr -c '0-9\n' -)

.PHONY: test soak build-lambda

# Everything: format, lints, unit tests, contracts, simulation, and the template deployed on a local AWS.
test: .venv
	@CARGO_TARGET_DIR="$${CARGO_TARGET_DIR:-$(CACHE)/target}" PATH="$(CURDIR)/.venv/bin:$$PATH" local/test

# 100,000 simulated runs; a failure prints the seed that replays it.
soak:
	cargo run --release --quiet -- simulate --seed 1 --runs 100000

.venv: requirements.txt
	@test -e $(VENV)/complete || { echo "Installing requirements.txt into $(VENV) ..."; rm -rf $(VENV) \
		&& python3 -m venv $(VENV) && $(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt \
		&& touch $(VENV)/complete; }
	@ln -sfn $(VENV) .venv && touch $(VENV)

# The release bootstraps for AWS, under target/lambda/; add ARCH=--arm64 for the template's Architecture=arm64.
build-lambda: .venv
	PATH="$(CURDIR)/.venv/bin:$$PATH" cargo lambda build --profile lambda $(ARCH) \
		-p packshot-splitter -p packshot-generator -p packshot-merger
