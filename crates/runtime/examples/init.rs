//! The built-in init alone: `init [--] COMMAND [ARGUMENT…]`. For the tests, which need it in a program with one thread.

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    coracle_runtime::init_main(&arguments)
}
