//! Every verb that changes anything, as a scenario: what is there before, the command, and what must be true of it.
//!
//! In a line `DIR` is the test's folder and `MARK` a number that names the test's own `sleep`s.

/// One verb in one situation.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called in findings.
    pub name: &'static str,
    /// Lines that make the situation.
    pub before: &'static [&'static str],
    /// The command.
    pub verb: &'static str,
    /// Its exit code when nothing goes wrong.
    pub code: i32,
    /// Of each group of names, a container with one of them must exist afterwards, whatever happens to the command.
    pub keeps: &'static [&'static [&'static str]],
    /// Whether the same command must succeed after it was killed.
    pub repeats: Repeats,
    /// Whether the command kills containers, which then have 137 as their exit code.
    pub kills: bool,
}

/// When a command that was killed must succeed the next time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Repeats {
    /// Whatever happened.
    Always,
    /// Unless the host went down, and the container with it.
    WhileUp,
    /// It may be done already, and refused.
    Maybe,
}

const PLAIN: Scenario = Scenario {
    name: "",
    before: &[],
    verb: "",
    code: 0,
    keeps: &[],
    repeats: Repeats::Always,
    kills: false,
};

const CREATE: &str = "create --name c1 busybox sleep MARK";
const RUN: &str = "run -d --name c1 -v data:/d busybox sleep MARK";

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "run",
        verb: "run --name c1 --memory 64m busybox sh -c 'echo out; exit 3'",
        code: 3,
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "run-detached",
        verb: "run -d --name c1 -v data:/d busybox sleep MARK",
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "run-removed",
        verb: "run --rm -v /anonymous busybox true",
        ..PLAIN
    },
    Scenario {
        name: "create",
        verb: "create --name c1 -v data:/d -v /anonymous busybox true",
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "start",
        before: &[CREATE],
        verb: "start c1",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "start-host",
        before: &["create --name c1 --memory 48m --memory-swap 48m -v data:/d @host sleep MARK"],
        verb: "start c1",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "start-short",
        before: &["create --name c1 busybox true"],
        verb: "start c1",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "stop",
        kills: true,
        before: &[RUN],
        verb: "stop -t 0 c1",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "stop-removed",
        kills: true,
        before: &["run -d --rm --name c1 -v /anonymous busybox sleep MARK"],
        verb: "stop -t 0 c1",
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "restart",
        kills: true,
        before: &[RUN],
        verb: "restart -t 0 c1",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "kill",
        kills: true,
        before: &[RUN],
        verb: "kill c1",
        keeps: &[&["c1"]],
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "pause",
        before: &[RUN],
        verb: "pause c1",
        keeps: &[&["c1"]],
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "unpause",
        before: &[RUN, "pause c1"],
        verb: "unpause c1",
        keeps: &[&["c1"]],
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "rm",
        before: &["create --name c1 -v /anonymous busybox true"],
        verb: "rm -v c1",
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "rm-force",
        kills: true,
        before: &[RUN],
        verb: "rm -f -v c1",
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "rename",
        before: &[RUN],
        verb: "rename c1 c2",
        keeps: &[&["c1", "c2"]],
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "update",
        before: &[RUN],
        verb: "update --memory 48m --memory-swap 48m --pids-limit 40 c1",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "exec",
        before: &[RUN],
        verb: "exec c1 true",
        repeats: Repeats::WhileUp,
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "cp-in",
        before: &[CREATE],
        verb: "cp DIR/files c1:/in",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "cp-link",
        before: &["run --name c1 busybox ln -s DIR/outside /link"],
        verb: "cp DIR/files c1:/link/in",
        code: 125,
        keeps: &[&["c1"]],
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "cp-out",
        before: &[CREATE],
        verb: "cp c1:/etc DIR/out",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "commit",
        before: &[CREATE, "cp DIR/files c1:/in"],
        verb: "commit c1 new:1",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "volume-create",
        verb: "volume create v1",
        ..PLAIN
    },
    Scenario {
        name: "volume-rm",
        before: &["volume create v1"],
        verb: "volume rm v1",
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "volume-prune",
        before: &["volume create v1", "volume create v2"],
        verb: "volume prune -f",
        ..PLAIN
    },
    Scenario {
        name: "load",
        before: &["rmi busybox"],
        verb: "load -i DIR/busybox.tar",
        ..PLAIN
    },
    Scenario {
        name: "import",
        verb: "import DIR/export.tar new:1",
        ..PLAIN
    },
    Scenario {
        name: "tag",
        verb: "tag busybox new:1",
        ..PLAIN
    },
    Scenario {
        name: "rmi",
        before: &["import DIR/export.tar new:1"],
        verb: "rmi new:1",
        repeats: Repeats::Maybe,
        ..PLAIN
    },
    Scenario {
        name: "image-prune",
        before: &[
            "import DIR/export.tar new:1",
            "create --name c1 busybox true",
        ],
        verb: "image prune -a -f",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "save",
        verb: "save -o DIR/saved.tar busybox",
        ..PLAIN
    },
    Scenario {
        name: "export",
        before: &[CREATE],
        verb: "export -o DIR/exported.tar c1",
        keeps: &[&["c1"]],
        ..PLAIN
    },
    Scenario {
        name: "system-prune",
        before: &[
            "create --name c1 -v data:/d busybox true",
            "import DIR/export.tar new:1",
            "volume create v1",
        ],
        verb: "system prune -f --volumes",
        ..PLAIN
    },
];

/// The scenario of this name.
pub fn scenario(name: &str) -> &'static Scenario {
    SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .unwrap_or_else(|| panic!("no scenario is called {name}"))
}
