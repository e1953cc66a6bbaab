//! The options of `run` and `create`, as typed. The text of each is its line in `--help` and in the manual.

use super::ResourceArguments;
use super::health::HealthArguments;

/// What describes a container.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Container")]
pub(crate) struct ContainerArguments {
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Attach only these of stdin, stdout and stderr
    #[arg(short = 'a', long, value_name = "STREAM")]
    pub(crate) attach: Vec<String>,
    /// Keep standard input open
    #[arg(short = 'i', long)]
    pub(crate) interactive: bool,
    /// Allocate a pseudo terminal
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    /// Write the id into this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<String>,
    /// Program that runs in place of the image's entrypoint; "" clears it
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Set a variable; KEY alone takes its value from here, or removes it
    #[arg(short = 'e', long, value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<String>,
    /// Host name inside (default: the short id)
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Domain name inside
    #[arg(long, value_name = "NAME")]
    pub(crate) domainname: Option<String>,
    /// Run a small init as PID 1 that forwards signals and reaps
    #[arg(long)]
    pub(crate) init: bool,
    /// Remove the container and its anonymous volumes when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// User, by the image's names or numbers
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Supplementary group
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Working directory
    #[arg(short = 'w', long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Use this directory of the host as root, instead of an image; it is not changed
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: Option<String>,
    /// Fetch the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub(crate) pull: String,
    /// Platform of the image; only this host's
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Label
    #[arg(short = 'l', long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<String>,
    /// Annotation of the OCI document
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Restart policy: no, on-failure[:COUNT], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// Signal that `stop` sends (default: the image's, else SIGTERM)
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds that `stop` waits before it kills (default: 10; -1: for ever)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<String>,
    /// Log driver: json-file or none
    #[arg(long, value_name = "DRIVER")]
    pub(crate) log_driver: Option<String>,
    /// Option of the log driver: max-size=SIZE, max-file=COUNT
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) log_opt: Vec<String>,

    /// Mount a path of the host or a volume: [SOURCE:]TARGET[:OPTION,…]; options: ro, rw, nocopy, noidmap, rprivate, …
    #[arg(
        short = 'v',
        long,
        value_name = "[SOURCE:]TARGET[:OPTIONS]",
        help_heading = "Files"
    )]
    pub(crate) volume: Vec<String>,
    /// Mount by key=value pairs: type=bind|volume|tmpfs,source=…,target=…,readonly,…
    #[arg(long, value_name = "KEY=VALUE,…", help_heading = "Files")]
    pub(crate) mount: Vec<String>,
    /// Mount a tmpfs: TARGET[:size=…,mode=…,…]
    #[arg(long, value_name = "TARGET[:OPTIONS]", help_heading = "Files")]
    pub(crate) tmpfs: Vec<String>,
    /// Mount the volumes of another container: CONTAINER[:ro|rw]
    #[arg(long, value_name = "CONTAINER[:MODE]", help_heading = "Files")]
    pub(crate) volumes_from: Vec<String>,
    /// Size of /dev/shm (default: 64m)
    #[arg(long, value_name = "SIZE", help_heading = "Files")]
    pub(crate) shm_size: Option<String>,
    /// Device of the host: HOST[:INSIDE][:rwm]
    #[arg(long, value_name = "DEVICE", help_heading = "Files")]
    pub(crate) device: Vec<String>,
    /// Further device rule, as "c 10:200 rwm"
    #[arg(long, value_name = "RULE", help_heading = "Files")]
    pub(crate) device_cgroup_rule: Vec<String>,

    /// Add a capability (ALL: all of them)
    #[arg(long, value_name = "CAPABILITY", help_heading = "Isolation")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a capability (ALL: all of them)
    #[arg(long, value_name = "CAPABILITY", help_heading = "Isolation")]
    pub(crate) cap_drop: Vec<String>,
    /// Take nearly all isolation away: all capabilities and devices, no filter, no user namespace
    #[arg(long, help_heading = "Isolation")]
    pub(crate) privileged: bool,
    /// seccomp=FILE|unconfined|builtin, no-new-privileges[=BOOL], mask=PATH, unmask=PATH|ALL, systempaths=unconfined, label=…, apparmor=…
    #[arg(long, value_name = "OPTION", help_heading = "Isolation")]
    pub(crate) security_opt: Vec<String>,
    /// User namespace: auto (the default), host, container:NAME, map:uids=0:100000:65536,gids=…
    #[arg(long, value_name = "MODE", help_heading = "Isolation")]
    pub(crate) userns: Option<String>,
    /// PID namespace: private, host, container:NAME
    #[arg(long, value_name = "MODE", help_heading = "Isolation")]
    pub(crate) pid: Option<String>,
    /// IPC namespace: private, host, container:NAME
    #[arg(long, value_name = "MODE", help_heading = "Isolation")]
    pub(crate) ipc: Option<String>,
    /// UTS namespace: private, host, container:NAME
    #[arg(long, value_name = "MODE", help_heading = "Isolation")]
    pub(crate) uts: Option<String>,
    /// Cgroup namespace: private, host
    #[arg(long, value_name = "MODE", help_heading = "Isolation")]
    pub(crate) cgroupns: Option<String>,
    /// Resource limit: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT", help_heading = "Isolation")]
    pub(crate) ulimit: Vec<String>,
    /// Kernel parameter of the container's own namespaces
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Isolation")]
    pub(crate) sysctl: Vec<String>,

    /// Network: none, host, container:NAME, or a name
    #[arg(
        long,
        visible_alias = "net",
        value_name = "MODE",
        help_heading = "Network"
    )]
    pub(crate) network: Option<String>,
    /// Publish a port: [[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]
    #[arg(short = 'p', long, value_name = "PORT", help_heading = "Network")]
    pub(crate) publish: Vec<String>,
    /// Publish all exposed ports
    #[arg(short = 'P', long, help_heading = "Network")]
    pub(crate) publish_all: bool,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "PORT", help_heading = "Network")]
    pub(crate) expose: Vec<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network")]
    pub(crate) add_host: Vec<String>,
    /// DNS server
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    pub(crate) dns: Vec<String>,
    /// DNS search domain
    #[arg(long, value_name = "DOMAIN", help_heading = "Network")]
    pub(crate) dns_search: Vec<String>,
    /// DNS resolver option
    #[arg(
        long,
        visible_alias = "dns-opt",
        value_name = "OPTION",
        help_heading = "Network"
    )]
    pub(crate) dns_option: Vec<String>,

    #[command(flatten)]
    pub(crate) resources: ResourceArguments,
    #[command(flatten)]
    pub(crate) health: HealthArguments,

    /// The image, unless --rootfs is given, then the command and its arguments
    #[arg(value_name = "IMAGE [COMMAND [ARGUMENT…]]", trailing_var_arg = true)]
    pub(crate) words: Vec<String>,
}
