//! The supervisor with real processes. The harness is this file's own: a test can run itself again as a monitor in a
//! process of its own with one thread, as a detached monitor is, so that signals and death can be tried.

#![allow(missing_docs)]

#[path = "process/attached.rs"]
mod attached;
#[path = "process/detached.rs"]
mod detached;
#[path = "process/foreground.rs"]
mod foreground;
#[path = "process/shell.rs"]
mod shell;

type Test = (&'static str, fn());

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(shell::AS_MONITOR) {
        let case = arguments.next().expect("a case");
        let directory = arguments.next().expect("a directory");
        detached::as_monitor(&case, std::path::Path::new(&directory));
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| match filter {
        Some(filter) if flag("--exact") => name == filter,
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    };
    let tests = [foreground::TESTS, attached::TESTS, detached::TESTS].concat();
    let chosen: Vec<&Test> = tests.iter().filter(|(name, _)| wanted(name)).collect();
    if flag("--list") {
        if !flag("--ignored") {
            for (name, _) in chosen {
                println!("{name}: test");
            }
        }
        return;
    }
    let mut failed = 0;
    let count = chosen.len();
    for (name, test) in chosen {
        let passed = std::thread::Builder::new()
            .name((*name).to_owned())
            .spawn(*test)
            .expect("a thread")
            .join()
            .is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let (passed, others) = (count - failed, tests.len() - count);
    println!("test result: {result}. {passed} passed; {failed} failed; {others} filtered out");
    if failed > 0 {
        std::process::exit(101);
    }
}
