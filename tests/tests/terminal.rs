//! Terminals: `-t`, resizing, detaching and coming back.

use coracle_tests::{Engine, Terminal};

#[test]
fn terminal_is_a_terminal_of_the_container() {
    let engine = Engine::new();
    let terminal = Terminal::spawn(engine.line("run --rm -it busybox sh"));
    terminal.send("tty; test -t 0 && test -t 1 && test -t 2 && echo all three; exit 9\n");
    terminal.expect("/dev/pts/0");
    terminal.expect("all three\r\n");
    assert_eq!(terminal.wait(), 9);
}

#[test]
fn size_is_given_at_the_start_and_follows() {
    let engine = Engine::new();
    let terminal = Terminal::spawn(engine.line("run --rm -it busybox sh"));
    terminal.send("stty size\n");
    terminal.expect("24 80");
    terminal.resize(33, 111);
    terminal.send("sleep 0.3; stty size; exit\n");
    terminal.expect("33 111");
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn interrupt_reaches_the_program_and_not_the_command() {
    let engine = Engine::new();
    let terminal = Terminal::spawn(engine.line("run --rm -it busybox sh"));
    // Until the container has the terminal, an interrupt is the command's own.
    terminal.send("echo re''ady\n");
    terminal.expect("ready\r\n");
    terminal.send("sleep 50 || echo interrupted $?\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.send("\x03");
    terminal.send("echo still-here\nexit\n");
    terminal.expect("still-here\r\n");
    terminal.wait();
}

#[test]
fn terminal_modes_are_put_back() {
    let engine = Engine::new();
    let terminal = Terminal::spawn(engine.line("run --rm -it busybox sh -c 'echo up; sleep 0.5'"));
    assert!(terminal.is_cooked());
    terminal.expect("up");
    assert!(!terminal.is_cooked(), "raw while the container has it");
    coracle_tests::eventually(
        "modes are put back",
        std::time::Duration::from_secs(10),
        || terminal.is_cooked(),
    );
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn detach_keys_leave_it_running_and_attach_comes_back() {
    let engine = Engine::new();
    let terminal = Terminal::spawn(engine.line("run -it --name d1 busybox sh"));
    terminal.send("echo be''fore\n");
    terminal.expect("before\r\n");
    terminal.send("\x10\x11");
    assert_eq!(terminal.wait(), 0);
    assert_eq!(engine.field("d1", "{{.State.Running}}"), "true");
    let terminal = Terminal::spawn(engine.line("attach d1"));
    terminal.send("echo af''ter; exit 4\n");
    terminal.expect("after\r\n");
    assert_eq!(terminal.wait(), 4);
    assert_eq!(engine.field("d1", "{{.State.ExitCode}}"), "4");
}

#[test]
fn detach_keys_can_be_others() {
    let engine = Engine::new();
    let terminal =
        Terminal::spawn(engine.line("run -it --detach-keys ctrl-a,x --name d1 busybox sh"));
    terminal.send("echo sta''rted\n");
    terminal.expect("started\r\n");
    terminal.send("\x01x");
    assert_eq!(terminal.wait(), 0);
    assert_eq!(engine.field("d1", "{{.State.Running}}"), "true");
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 100");
    let terminal = Terminal::spawn(engine.line("exec -it c1 sh"));
    terminal.send("tty; stty size; exit 6\n");
    terminal.expect("/dev/pts/");
    terminal.expect("24 80");
    assert_eq!(terminal.wait(), 6);
}

#[test]
fn detached_container_with_a_terminal_logs_what_it_shows() {
    let engine = Engine::new();
    engine.ok("run -dt --name t1 busybox sh -c 'tty; echo done'");
    engine.ok("wait t1");
    engine
        .run("logs t1")
        .success()
        .out("/dev/pts/0\r\n")
        .out("done\r\n");
}

#[test]
fn terminal_without_a_terminal_is_refused() {
    let engine = Engine::new();
    engine.refuses("run --rm -it busybox true").err("terminal");
    assert_eq!(engine.ok("ps -aq"), "");
}
