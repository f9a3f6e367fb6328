# The Postgres that `install`, `test` and `demo` build for: Debian's own when left out, 15 on 12, 17 on 13.
PG_CONFIG ?=
# For `install`: release, or dev, which builds faster and runs slower.
PROFILE ?= release
# For the test targets: only tests whose name contains this.
T ?=
# For the targets with containers: only these base images, such as 17-trixie.
POSTGRES ?=

export PG_CONFIG
# build.rs does it instead; see there.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND := 1

.DEFAULT_GOAL := help
.PHONY: help setup install demo demo-stop bench \
	test test-format test-lint test-lint-quick test-unit test-database test-blackbox test-demo \
	unseal package test-docker test-versions test-all

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

setup: ## Install what the project needs: Debian packages, cargo-pgrx, LocalStack, an exporter
	@scripts/setup/all

install: ## Build for the server of PG_CONFIG and install there; PROFILE=dev builds faster
	@scripts/install "$(PROFILE)"

demo: setup ## Build, start Postgres and LocalStack, ingest a queue of login messages
	@scripts/demo/start

demo-stop: ## End what the demo started and remove its data
	@scripts/demo/stop

test: ## All tests on this machine
	@scripts/test/all

test-format: ## Formatting
	@scripts/test/format

test-lint: ## clippy and all other linters; warnings are errors
	@scripts/test/lint

test-lint-quick: ## The linters that compile nothing, as at each commit
	@scripts/test/lint-quick

test-unit: ## Unit and property tests, without a server; T=name for some
	@scripts/test/unit "$(T)"

test-database: ## Tests inside a Postgres backend; T=name for some
	@scripts/test/database "$(T)"

test-blackbox: ## Tests from outside: Postgres, LocalStack, an SQS that misbehaves; T=name for some
	@scripts/test/blackbox "$(T)"

test-demo: ## The demo, from its start to its end
	@scripts/test/demo

bench: setup ## Throughput and CPU against other ways to do it; N=, LATENCIES=, REPEATS=, LEDGER=, ONLY=
	@benches/run

unseal: ## The program that opens what the vault sealed, for where the private key is
	@scripts/unseal

package: ## Debian packages of the extension, for the server of PG_CONFIG, and of unseal, into target/packages
	@scripts/package/all

test-docker: ## The image, docker-compose.yml and the package, in containers; POSTGRES=17-trixie for another version
	@tests/docker/run $(POSTGRES)

test-versions: ## database and blackbox on every major version, in containers; POSTGRES= for some, T=name for some tests
	@T="$(T)" tests/docker/matrix $(POSTGRES)

test-all: ## test, and the tests with containers on all versions
	@tests/docker/all
