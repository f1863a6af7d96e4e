# One command for each chore; each is a script in scripts/, for machines without make.
.PHONY: dev test quick fmt check conformance lint package

dev: ; @scripts/dev
test: ; @scripts/test
quick: ; @QUICK=1 scripts/test
lint: ; @scripts/lint
fmt: ; @cargo fmt --all
check: ; @cargo clippy --workspace --all-targets --locked -- -D warnings
conformance: ; @tests/conformance/run memory
