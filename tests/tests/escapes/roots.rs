//! The root: climbing over it, going under it, and taking what covers the host away.

use coracle_tests::compile;

use crate::stage::{HOST_USERS, attack, everywhere, marker, with_own_users};

#[test]
fn second_chroot_does_not_climb_out() {
    everywhere(|engine, stance| {
        let Some(program) = compile("chroot", engine.dir()) else {
            return;
        };
        let (_, marker) = marker(engine);
        for more in [
            "",
            "--read-only --tmpfs /tmp",
            "--cap-add ALL --security-opt seccomp=unconfined",
        ] {
            attack(engine, &program, &format!("{stance} {more}"), &[&marker])
                .not_out("ESCAPED")
                .success()
                .out("contained");
        }
        // The program does climb out of a root that is only a chroot: of one inside the container.
        let script = "mkdir -p /jail/tmp /jail/etc; echo x > /outside; cp /attack /jail/attack; \
             chroot /jail /attack /outside";
        let options = format!("{stance} -v {}:/attack:ro", program.display());
        engine.sh(&options, script).success().out("ESCAPED");
    });
}

/// Shocker, 2014: a file is opened by the number of its inode, past every directory.
#[test]
fn file_handles_do_not_open_the_hosts_root() {
    everywhere(|engine, stance| {
        let Some(program) = compile("handle", engine.dir()) else {
            return;
        };
        let (_, marker) = marker(engine);
        let mut relaxations = vec![""];
        if stance != HOST_USERS {
            relaxations.extend([
                "--cap-add DAC_READ_SEARCH",
                "--cap-add ALL --security-opt seccomp=unconfined",
            ]);
        }
        for more in relaxations {
            attack(engine, &program, &format!("{stance} {more}"), &[&marker])
                .success()
                .not_out("ESCAPED")
                .out("done");
        }
    });
}

#[test]
fn mounts_of_the_host_cannot_be_uncovered() {
    with_own_users(|engine, _| {
        let (_, marker) = marker(engine);
        // With the right to mount in its own namespaces masks come off; what is under them is still the host's, and the
        // old root is gone.
        let script = format!(
            "for m in interrupts kcore keys timer_list sched_debug; do umount /proc/$m 2>/dev/null; done; \
             for f in kcore timer_list kmsg kpagecount kpageflags vmallocinfo; do head -c1 /proc/$f 2>/dev/null | grep -q . && echo READ $f; done; \
             umount -l /proc 2>/dev/null; mkdir -p /tmp/p; \
             mount -t proc proc /tmp/p 2>/dev/null && ( echo h > /tmp/p/sysrq-trigger ) 2>/dev/null && echo WROTE; \
             for i in 1 2 3 4; do umount -l / 2>/dev/null; done; cat {marker} 2>/dev/null && echo ESCAPED; true"
        );
        for more in [
            "--cap-add SYS_ADMIN",
            "--cap-add ALL --security-opt seccomp=unconfined",
        ] {
            engine
                .sh(more, &script)
                .not_out("READ")
                .not_out("WROTE")
                .not_out("ESCAPED");
        }
    });
}

/// The table of mounts names no directory of the host but what the user mounted himself, and the old root is nowhere.
#[test]
fn old_root_is_in_no_mount_of_the_container() {
    everywhere(|engine, stance| {
        let seen = engine.sh_ok(stance, "cat /proc/self/mountinfo; ls -a / | tr '\\n' ' '");
        assert!(
            !seen.contains("old_root") && !seen.contains("pivot"),
            "{seen}"
        );
        let roots = seen
            .lines()
            .filter(|line| line.split(' ').nth(4) == Some("/"));
        assert_eq!(roots.count(), 1, "{seen}");
    });
}

/// A mount that a container makes does not come out, and one of the host's that is made later does not come in.
#[test]
fn mounts_do_not_propagate() {
    let script = "mkdir -p /data/m; mount -t tmpfs inner /data/m && touch /data/m/escaped && echo mounted; true";
    with_own_users(|engine, _| {
        let data = engine.make_dir("data");
        std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("it is ours");
        let volume = format!("-v {}:/data", data.display());
        let more = "--cap-add SYS_ADMIN --security-opt seccomp=unconfined";
        engine
            .sh(&format!("{volume} {more}"), script)
            .success()
            .out("mounted");
        assert!(!data.join("m/escaped").exists());
        assert!(coracle_tests::host::mounts_under(&data).is_empty());
    });
}
