//! The steps of a process between clone and exec, and what an error calls them.

use std::fmt;

macro_rules! steps {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)+) => {
        /// A step of the process. `Display` is a gerund that reads before its object and "failed".
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u32)]
        pub enum Step {
            $($(#[$meta])* #[doc = $text] $name,)+
        }

        const ALL: &[Step] = &[$(Step::$name,)+];

        impl fmt::Display for Step {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(match self {
                    $(Self::$name => $text,)+
                })
            }
        }
    };
}

steps! {
    Starting = "starting",
    JoiningUserNamespace = "joining the user namespace",
    JoiningNamespace = "joining the namespaces",
    JoiningCgroup = "joining the cgroup",
    CreatingNamespaces = "creating the namespaces",
    WaitingForIds = "waiting for the id maps",
    BecomingRoot = "becoming the root of the user namespace",
    NewSession = "making a new session",
    DetachingPropagation = "detaching the mounts of the host",
    PreparingMount = "creating the file system for",
    MakingFile = "making the file for",
    WaitingForRoot = "waiting for the root file system",
    AttachingRoot = "attaching the root file system",
    ResolvingTarget = "making the mount target",
    TargetOnProc = "protecting procfs from a mount on",
    Mounting = "mounting on",
    OpeningDev = "opening /dev",
    MakingDevice = "making the device",
    Linking = "making the link",
    VerifyingNull = "verifying that the host's /dev/null is the null device",
    Masking = "masking",
    MakingReadOnly = "making read-only",
    MakingMountReadOnly = "making read-only the mount on",
    MakingTerminal = "making the terminal",
    MakingConsole = "making /dev/console",
    MountingProcForSysctl = "mounting a procfs for the sysctls",
    SettingSysctl = "setting the sysctl",
    SettingHostName = "setting the host name",
    SettingDomainName = "setting the domain name",
    LoopbackUp = "bringing up the loopback",
    MakingWorkingDirectory = "making the working directory",
    WaitingForHooks = "waiting for the hooks",
    Pivoting = "pivoting into the root file system",
    LeavingOldRoot = "unmounting the host's root",
    RootPropagation = "setting the propagation of the root",
    RootReadOnly = "making the root file system read-only",
    EnteringWorkingDirectory = "entering the working directory",
    WorkingDirectoryOutside = "verifying that the working directory is inside the root",
    SettingOomScore = "setting oom_score_adj",
    SettingRlimit = "setting the limit",
    SettingScheduling = "setting the scheduler",
    SettingIoPriority = "setting the I/O priority",
    SettingAffinity = "setting the processors",
    SettingMemoryPolicy = "setting the memory policy",
    SettingLabel = "setting the security label",
    SettingPersonality = "setting the personality",
    JoiningKeyring = "joining a new session keyring",
    NoNewPrivileges = "setting no_new_privs",
    LoadingFilter = "loading the seccomp filter",
    DroppingBoundingSet = "dropping capabilities from the bounding set",
    SettingGroups = "setting the supplementary groups",
    SettingGid = "setting the group id",
    SettingUid = "setting the user id",
    SettingCapabilities = "setting the capabilities",
    SettingAmbient = "setting the ambient capabilities",
    ArrangingDescriptors = "arranging the descriptors",
    WaitingForStart = "waiting for the start",
    ResettingSignals = "resetting the signals",
    Executing = "executing",
    /// The command is there, its interpreter is not.
    ExecutingInterpreted = "executing the interpreter of",
    /// The command leads to the engine's executable.
    ExecutingEngine = "executing the engine as",
}

impl Step {
    /// From the child's word; anything else than a step is a bug that shows as the first.
    pub(crate) fn from_word(word: u32) -> Self {
        ALL.get(word as usize).copied().unwrap_or(Self::Starting)
    }
}
