# What the tests and ./stack run on. Kept outside the clone and named after the pinned versions, so that the next clone and
# the next run find it.
VENV := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/packshot/venv-$(shell cksum < requirements.txt | tr -c '0-9\n' -)

.PHONY: build-lambda

.venv: requirements.txt
	@test -e $(VENV)/complete || { echo "Installing requirements.txt into $(VENV) ..."; rm -rf $(VENV) \
		&& python3 -m venv $(VENV) && $(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt \
		&& touch $(VENV)/complete; }
	@ln -sfn $(VENV) .venv && touch $(VENV)

# The release bootstraps for AWS, under target/lambda/; add ARCH=--arm64 for the template's Architecture=arm64.
build-lambda: .venv
	PATH="$(CURDIR)/.venv/bin:$$PATH" cargo lambda build --profile lambda $(ARCH) \
		-p packshot-splitter -p packshot-generator -p packshot-merger
