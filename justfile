# Formatting and lints.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests, as the README says.
test:
    cargo test --workspace

# One benchmark: `just bench ingest --set S`.
bench *args:
    cargo run --release -p highwater-benches -- {{args}}

# What CI runs.
ci:
    bash .ci/run
