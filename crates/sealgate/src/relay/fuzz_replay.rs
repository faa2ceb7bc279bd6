//! The program's own readers over the corpora of their fuzz targets, in the test command.

#[path = "../../tests/fuzz_bodies/program.rs"]
mod bodies;
#[path = "../../../sealgate-core/tests/support/corpus.rs"]
mod corpus;

#[test]
fn the_corpora_of_the_program_replay() {
    corpus::replay(bodies::TARGETS);
}
