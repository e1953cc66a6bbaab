//! The last part, the same for a start and an exec: descriptors, credentials, and the command itself.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::sync::atomic::Ordering;

use coracle_linux::descriptor::{Fd, Slot};
use coracle_linux::{futex, keyring, namespace, process, seccomp};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fchown, fstat, openat, openat2};
use rustix::io::{Errno, read};
use rustix::process::{chdir, ioctl_tiocsctty, set_parent_process_death_signal, umask};
use rustix::thread::{Uid, sched_setaffinity};

use super::console::open_peer;
use super::{Never, WATCH, Walk};
use crate::gate;
use crate::plan::{Command, Executable, Identity, Labels, PRESERVED, Place, life, word};
use crate::step::Step;

impl Walk<'_> {
    pub(super) fn become_command(&self) -> Result<Never, Errno> {
        let command = &self.plan.command;
        let identity = command.identity.get().ok_or(Errno::INVAL)?;
        if let (Place::Join(_), Some(terminal)) = (&self.plan.place, command.terminal) {
            let root = Fd::from(openat(
                CWD,
                c"/",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?);
            self.make_terminal(root.as_fd(), terminal, false)?;
        }
        self.set_kernel_state(command)?;
        // Before the ids change: root may enter directories that the user may not, as long as they are inside.
        self.at(Step::EnteringWorkingDirectory);
        let entered = chdir(command.working_directory.as_c_str());
        if let Err(error) = entered
            && error != Errno::ACCESS
        {
            return Err(error);
        }
        let kept = self.arrange_descriptors(command, identity.uid)?;
        let Some(outcome) = command
            .gate
            .is_some()
            .then(|| process::adopt(last_number(command) + 1))
        else {
            return self.go_on(command, identity, entered, &kept);
        };
        let Err(error) = self.go_on(command, identity, entered, &kept);
        self.tell(&outcome, error);
        Err(error)
    }

    /// From the arranged descriptors to the exec.
    fn go_on(
        &self,
        command: &Command,
        identity: &Identity,
        entered: Result<(), Errno>,
        kept: &Fd,
    ) -> Result<Never, Errno> {
        let late = command.no_new_privileges && !command.notifies();
        if !command.no_new_privileges {
            // Without no_new_privs only a privileged process may load a filter, so it comes before the capabilities go.
            self.load_filter(command)?;
        }
        self.set_credentials(command, identity)?;
        if entered.is_err() {
            self.at(Step::EnteringWorkingDirectory);
            chdir(command.working_directory.as_c_str())?;
        }
        self.at(Step::WorkingDirectoryOutside);
        if !process::is_directory_reachable()? {
            return Err(Errno::XDEV);
        }
        if command.no_new_privileges && !late {
            // While the parent is there to take the listener.
            self.load_filter(command)?;
        }
        if command.gate.is_some() {
            // Whoever creates is to hear of a command that is not there, rather than whoever starts.
            self.find(identity, 0)?;
        }
        self.stand_before_exec()?;
        self.wait_for_leave(command, kept.as_fd())?;
        self.at(Step::ResettingSignals);
        set_parent_process_death_signal(None)?;
        process::default_signal_actions()?;
        process::set_signal_mask(0)?;
        // Before the filter, which need not allow looking.
        let first = self.find(identity, 0)?;
        if late {
            self.load_filter(command)?;
        }
        self.at(Step::Executing);
        Err(self.execute(command, identity, first))
    }

    /// What the kernel keeps for a process beside its credentials.
    fn set_kernel_state(&self, command: &Command) -> Result<(), Errno> {
        if command.new_session_keyring {
            self.at(Step::JoiningKeyring);
            match keyring::join_new_session() {
                // A kernel without keys has none to share.
                Ok(()) | Err(Errno::NOSYS) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(persona) = command.personality {
            self.at(Step::SettingPersonality);
            process::set_personality(persona)?;
        }
        if let Some((class, level)) = command.io_priority {
            self.at(Step::SettingIoPriority);
            process::set_io_priority(class, level)?;
        }
        if let Some(scheduling) = command.scheduling {
            self.at(Step::SettingScheduling);
            process::set_scheduling(scheduling)?;
        }
        if let Some(set) = command.affinity.and_then(|affinity| affinity.last) {
            self.at(Step::SettingAffinity);
            sched_setaffinity(None, &set)?;
        }
        if let Some(policy) = &command.memory_policy {
            self.at(Step::SettingMemoryPolicy);
            process::set_memory_policy(policy.mode, policy.nodes.as_ref())?;
        }
        if let Some(labels) = &command.labels {
            self.set_labels(labels)?;
        }
        umask(Mode::from_raw_mode(command.umask));
        Ok(())
    }

    /// The labels that the exec gives the process.
    fn set_labels(&self, labels: &Labels) -> Result<(), Errno> {
        for label in &labels.all {
            self.at(Step::SettingLabel);
            // `self` is a link of procfs's own text, resolved to our pid in the namespace of that procfs.
            let file = Fd::from(openat2(
                &labels.proc,
                label.path.as_c_str(),
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH,
            )?);
            rustix::io::write(&file, &label.text)?;
        }
        Ok(())
    }

    /// A file table of our own, and in it the streams, what is preserved, and one more that is closed by the exec: the
    /// gate, or else the parent's pidfd. Returns that one.
    fn arrange_descriptors(&self, command: &Command, uid: Uid) -> Result<Fd, Errno> {
        self.at(Step::ArrangingDescriptors);
        for stream in command.streams.iter().flatten().filter_map(Slot::borrow) {
            if FileType::from_raw_mode(fstat(stream)?.st_mode) == FileType::Fifo {
                give(stream, uid)?;
            }
        }
        // From here on the parent's numbers are its own.
        namespace::unshare_files()?;
        let peer = match command.terminal {
            Some(_) => Some(open_peer(
                self.plan
                    .mailbox
                    .borrow(word::TERMINAL)
                    .ok_or(Errno::BADF)?,
            )?),
            None => None,
        };
        if let Some(peer) = &peer {
            give(peer.as_fd(), uid)?;
            ioctl_tiocsctty(peer)?;
        }
        let last = last_number(command);
        // The numbers that are given out end below this one.
        let floor = last + 3;
        // First out of the way, all of them: a source may have the number that another one gets.
        let mut moved = [const { None }; 3 + PRESERVED];
        for number in 0..last as usize {
            let source = match (&peer, &command.streams, number) {
                (Some(peer), _, 0..3) => Some(peer.as_fd()),
                (None, Some(streams), 0..3) => streams[number].borrow(),
                (None, None, 0..3) => None,
                _ => command.preserved.get(number - 3).and_then(Slot::borrow),
            };
            let source = source.ok_or(Errno::BADF)?;
            *moved.get_mut(number).ok_or(Errno::MFILE)? =
                Some(process::duplicate_above(source, floor)?);
        }
        let kept = match &command.gate {
            Some(gate) => gate.start.borrow().ok_or(Errno::BADF)?,
            None => self.plan.parent.as_fd(),
        };
        let kept = process::duplicate_above(kept, floor)?;
        // With a gate, two more: where it says what failed, and its parent until it is released.
        let beside = match &command.gate {
            Some(gate) => {
                let outcome = gate.outcome.borrow().ok_or(Errno::BADF)?;
                Some([
                    process::duplicate_above(outcome, floor)?,
                    process::duplicate_above(self.plan.parent.as_fd(), floor)?,
                ])
            }
            None => None,
        };
        for (number, source) in moved.iter().flatten().enumerate() {
            process::duplicate_to(source.as_fd(), number as u32, false)?;
        }
        process::duplicate_to(kept.as_fd(), last, true)?;
        let mut open = last + 1;
        for fd in beside.iter().flatten() {
            process::duplicate_to(fd.as_fd(), open, true)?;
            open += 1;
        }
        // What `moved`, `kept`, `beside` and `peer` own is closed here; they must not close numbers that may be new by then.
        std::mem::forget((moved, kept, beside, peer));
        process::close_from(open)?;
        Ok(process::adopt(last))
    }

    /// Says through the gate what failed; nobody may be listening any more.
    fn tell(&self, outcome: &Fd, error: Errno) {
        let step = self.plan.mailbox.word(word::STEP).load(Ordering::Relaxed);
        let message = gate::encode(step, error);
        // The reader sees the end of the pipe in any case.
        let _ = rustix::io::write(outcome, &message);
    }

    fn wait_for_leave(&self, command: &Command, kept: BorrowedFd<'_>) -> Result<(), Errno> {
        if command.gate.is_some() {
            let parent = process::adopt(last_number(command) + 2);
            self.wait_for_start(parent.as_fd())?;
            // The parent goes away while the gate is shut, as soon as it reads this.
            set_parent_process_death_signal(None)?;
            drop(parent);
            futex::set(self.plan.mailbox.word(word::LIFE), life::RELEASED);
            let mut byte = [0u8; 1];
            loop {
                match read(kept, &mut byte) {
                    Err(Errno::INTR) => {}
                    result => return result.map(drop),
                }
            }
        }
        self.wait_for_start(kept)
    }

    /// Waits for the parent's word, or its end.
    fn wait_for_start(&self, parent: BorrowedFd<'_>) -> Result<(), Errno> {
        while futex::wait_while(self.plan.mailbox.word(word::START), 0, Some(WATCH)) == 0 {
            if coracle_linux::pidfd::has_ended(parent)? {
                return Err(Errno::SRCH);
            }
        }
        Ok(())
    }

    fn load_filter(&self, command: &Command) -> Result<(), Errno> {
        let Some(program) = command.seccomp.get() else {
            return Ok(());
        };
        self.at(Step::LoadingFilter);
        let Some(listener) = seccomp::install(&program.instructions, program.flags)? else {
            return Ok(());
        };
        // Left open until the exec closes it: the parent takes a copy meanwhile.
        let number = listener.into_raw_fd();
        self.plan
            .mailbox
            .word(word::LISTENER)
            .store(number as u32 + 1, Ordering::Release);
        Ok(())
    }

    /// The first candidate from `from` on that is there. One that is the engine itself is refused.
    fn find(&self, identity: &Identity, from: usize) -> Result<usize, Errno> {
        self.at(Step::Executing);
        for (index, candidate) in identity.candidates.iter().enumerate().skip(from) {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let file = match openat(CWD, candidate.as_c_str(), flags, Mode::empty()) {
                Ok(file) => Fd::from(file),
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                // The exec says the same, and whether another one is to be tried.
                Err(_) => return Ok(index),
            };
            // Only a filter that is loaded already can keep us from this look; the image does not choose it, and what keeps
            // the engine's file safe is elsewhere (see `seal`).
            if Executable::of(file.as_fd()) == Ok(self.plan.engine) {
                self.at(Step::ExecutingEngine);
                return Err(Errno::ACCESS);
            }
            return Ok(index);
        }
        Err(Errno::NOENT)
    }

    fn execute(&self, command: &Command, identity: &Identity, first: usize) -> Errno {
        let mut index = first;
        while let Some(candidate) = identity.candidates.get(index) {
            match process::execve(candidate, &command.arguments, &identity.environment) {
                Errno::NOENT => {
                    self.at(Step::ExecutingInterpreted);
                    return Errno::NOENT;
                }
                // As execvp(3): a later directory may have one that can be executed.
                Errno::ACCESS => {}
                error => return error,
            }
            index = match self.find(identity, index + 1) {
                Ok(index) => index,
                Err(Errno::NOENT) => return Errno::ACCESS,
                Err(error) => return error,
            };
        }
        Errno::ACCESS
    }
}

/// The number behind the streams and what is preserved: of the descriptor that the process waits on.
fn last_number(command: &Command) -> u32 {
    3 + command.preserved.len() as u32
}

/// Makes the command's user the owner, so that it may open /dev/stdout again.
fn give(stream: BorrowedFd<'_>, uid: Uid) -> Result<(), Errno> {
    match fchown(stream, Some(uid), None) {
        // Somebody else's pipe, or a file system without owners: it works as far as it is open.
        Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error),
    }
}
