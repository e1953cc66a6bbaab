//! Device rules as the eBPF program that cgroup v2 asks about every access to a device.
//!
//! ```text
//! context: u32 access << 16 | kind   kind: 1 block, 2 char; access: 1 mknod, 2 read, 4 write
//!          u32 major
//!          u32 minor
//! r1 context   r2 kind   r3 accesses that no rule decided yet   r4 major   r5 minor   r6 scratch
//! ```
//!
//! The last rule counts, so rules come in reverse. A rule that matches a device decides the accesses that it names and
//! that are still undecided: denied, the program ends with 0; allowed, they leave r3, and when r3 is empty it ends
//! with 1. What no rule decides is allowed. The verifier refuses unreachable code: nothing follows a universal rule.

use coracle_linux::bpf::Instruction;

use crate::devices::{DeviceAccess, DeviceKind, DeviceRule, DeviceRules};

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE_CONSTANT: u8 = 0xb7;
const AND_CONSTANT: u8 = 0x57;
const SHIFT_RIGHT_CONSTANT: u8 = 0x77;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_IF_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// Accesses as the kernel's bits.
pub(crate) fn access_bits(access: DeviceAccess) -> i32 {
    i32::from(access.mknod) | i32::from(access.read) << 1 | i32::from(access.write) << 2
}

/// The kind as the kernel's number; `None` is every kind.
pub(crate) fn kind_number(kind: DeviceKind) -> Option<i32> {
    match kind {
        DeviceKind::All => None,
        DeviceKind::Block => Some(1),
        DeviceKind::Char => Some(2),
    }
}

/// Compiles rules into a program.
pub(crate) fn compile(rules: &DeviceRules) -> Vec<Instruction> {
    let mut program = vec![
        Instruction::new(LOAD_WORD, KIND, CONTEXT, 0, 0),
        Instruction::new(MOVE_REGISTER, UNDECIDED, KIND, 0, 0),
        Instruction::new(AND_CONSTANT, KIND, 0, 0, 0xffff),
        Instruction::new(SHIFT_RIGHT_CONSTANT, UNDECIDED, 0, 0, 16),
        Instruction::new(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        Instruction::new(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.rules().iter().rev() {
        if rule.is_universal() {
            finish(&mut program, rule.allow);
            return program;
        }
        program.extend(compile_rule(rule));
    }
    finish(&mut program, true);
    program
}

fn finish(program: &mut Vec<Instruction>, allow: bool) {
    program.push(Instruction::new(
        MOVE_CONSTANT,
        RESULT,
        0,
        0,
        i32::from(allow),
    ));
    program.push(Instruction::new(EXIT, 0, 0, 0, 0));
}

fn compile_rule(rule: &DeviceRule) -> Vec<Instruction> {
    let bits = access_bits(rule.access);
    if bits == 0 {
        return Vec::new();
    }
    let mut body = Vec::new();
    if rule.allow {
        body.push(Instruction::new(AND_CONSTANT, UNDECIDED, 0, 0, 7 & !bits));
        body.push(Instruction::new(JUMP_UNLESS_EQUAL, UNDECIDED, 0, 2, 0));
        finish(&mut body, true);
    } else {
        body.push(Instruction::new(MOVE_REGISTER, SCRATCH, UNDECIDED, 0, 0));
        body.push(Instruction::new(AND_CONSTANT, SCRATCH, 0, 0, bits));
        body.push(Instruction::new(JUMP_IF_EQUAL, SCRATCH, 0, 2, 0));
        finish(&mut body, false);
    }
    let number = |number: Option<u32>| number.map(|number| number as i32);
    let conditions: Vec<(u8, i32)> = [
        (KIND, kind_number(rule.kind)),
        (MAJOR, number(rule.major)),
        (MINOR, number(rule.minor)),
    ]
    .into_iter()
    .filter_map(|(register, value)| Some((register, value?)))
    .collect();
    let length = conditions.len() + body.len();
    let mut code: Vec<Instruction> = conditions
        .iter()
        .enumerate()
        .map(|(index, (register, value))| {
            // Past the rest of this rule; jumps count from the next instruction.
            Instruction::new(
                JUMP_UNLESS_EQUAL,
                *register,
                0,
                (length - index - 1) as i16,
                *value,
            )
        })
        .collect();
    code.extend(body);
    code
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs the instructions that `compile` uses, as the kernel's interpreter does; panics on any other and on
    /// everything that the verifier would refuse at run time.
    fn interpret(program: &[Instruction], context: [u32; 3]) -> u64 {
        let mut registers: [Option<u64>; 11] = [None; 11];
        registers[usize::from(CONTEXT)] = Some(0);
        let mut at = 0usize;
        for _ in 0..10_000 {
            let instruction = program[at];
            at += 1;
            let (destination, source) = (
                usize::from(instruction.destination()),
                usize::from(instruction.source()),
            );
            let constant = i64::from(instruction.immediate) as u64;
            match instruction.code {
                LOAD_WORD => {
                    assert_eq!(registers[source], Some(0), "loads go through the context");
                    registers[destination] =
                        Some(u64::from(context[instruction.offset as usize / 4]));
                }
                MOVE_REGISTER => {
                    registers[destination] = Some(registers[source].expect("source is set"))
                }
                MOVE_CONSTANT => registers[destination] = Some(constant),
                AND_CONSTANT => {
                    registers[destination] = Some(registers[destination].expect("set") & constant)
                }
                SHIFT_RIGHT_CONSTANT => {
                    registers[destination] = Some(registers[destination].expect("set") >> constant)
                }
                JUMP_UNLESS_EQUAL | JUMP_IF_EQUAL => {
                    let equal = registers[destination].expect("set") == constant;
                    if equal == (instruction.code == JUMP_IF_EQUAL) {
                        at += usize::try_from(instruction.offset).expect("jumps go forward");
                    }
                }
                EXIT => return registers[usize::from(RESULT)].expect("the result is set"),
                code => panic!("unknown instruction {code:#x}"),
            }
        }
        panic!("the program does not end");
    }

    /// v1's own logic (security/device_cgroup.c), to test the other form against the same definition.
    fn legacy_allows(legacy: &crate::devices::LegacyDevices, request: &DeviceRule) -> bool {
        let matches = |line: &str| {
            let words: Vec<&str> = line.split([' ', ':']).collect();
            let [kind, major, minor, access] = words[..] else {
                panic!("malformed line {line:?}")
            };
            let number =
                |text: &str, number: Option<u32>| text == "*" || text.parse().ok() == number;
            let kind_matches = (kind == "b") == (request.kind == DeviceKind::Block);
            (kind_matches && number(major, request.major) && number(minor, request.minor))
                .then(|| DeviceAccess::parse(access).unwrap())
        };
        let mut found = legacy.exceptions.iter().filter_map(|line| matches(line));
        if legacy.allow_by_default {
            !found.any(|access| !access.and(request.access).is_empty())
        } else {
            found.any(|access| request.access.without(access).is_empty())
        }
    }

    fn access() -> impl Strategy<Value = DeviceAccess> {
        (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(read, write, mknod)| DeviceAccess { read, write, mknod })
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        let kind = prop_oneof![
            Just(DeviceKind::All),
            Just(DeviceKind::Block),
            Just(DeviceKind::Char)
        ];
        let number = || {
            prop_oneof![
                Just(None),
                (0u32..3).prop_map(Some),
                Just(Some(i32::MAX as u32))
            ]
        };
        let part = (any::<bool>(), kind, number(), number(), access()).prop_map(
            |(allow, kind, major, minor, access)| DeviceRule {
                allow,
                kind,
                major,
                minor,
                access,
            },
        );
        prop_oneof![6 => part, 1 => any::<bool>().prop_map(DeviceRule::all)]
    }

    fn rules() -> impl Strategy<Value = DeviceRules> {
        proptest::collection::vec(rule(), 0..8).prop_map(|list| {
            let mut rules = DeviceRules::unrestricted();
            list.into_iter().for_each(|rule| rules.push(rule));
            rules
        })
    }

    fn requests() -> impl Iterator<Item = DeviceRule> {
        let numbers = [0u32, 1, 2, 3, i32::MAX as u32];
        (1..8u8).flat_map(move |bits| {
            let access = DeviceAccess {
                read: bits & 1 != 0,
                write: bits & 2 != 0,
                mknod: bits & 4 != 0,
            };
            [DeviceKind::Block, DeviceKind::Char]
                .into_iter()
                .flat_map(move |kind| {
                    numbers.into_iter().flat_map(move |major| {
                        numbers.into_iter().map(move |minor| DeviceRule {
                            allow: true,
                            kind,
                            major: Some(major),
                            minor: Some(minor),
                            access,
                        })
                    })
                })
        })
    }

    fn expected(rules: &DeviceRules, request: &DeviceRule) -> bool {
        rules.allows(
            request.kind,
            request.major.unwrap(),
            request.minor.unwrap(),
            request.access,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn the_program_decides_as_the_rules_do(rules in rules()) {
            let program = compile(&rules);
            for request in requests() {
                let kind = kind_number(request.kind).unwrap();
                let word = (access_bits(request.access) << 16 | kind) as u32;
                let context = [word, request.major.unwrap(), request.minor.unwrap()];
                let allowed = interpret(&program, context) == 1;
                prop_assert_eq!(allowed, expected(&rules, &request), "{:?} of {:?}", request, rules);
            }
        }

        #[test]
        fn the_v1_form_decides_as_the_rules_do_or_is_refused(rules in rules()) {
            if let Ok(legacy) = rules.legacy() {
                for request in requests() {
                    let allowed = legacy_allows(&legacy, &request);
                    prop_assert_eq!(allowed, expected(&rules, &request), "{:?} of {:?} as {:?}", request, rules, legacy);
                }
            }
        }
    }

    #[test]
    fn every_program_passes_the_verifier() {
        let loadable =
            |rules: &DeviceRules| coracle_linux::bpf::load_device_program(&compile(rules));
        if let Err(coracle_linux::bpf::Error::Load(errno)) = loadable(&DeviceRules::unrestricted())
        {
            eprintln!("SKIP: every_program_passes_the_verifier: bpf(2): {errno}");
            return;
        }
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
        runner
            .run(&rules(), |rules| match loadable(&rules) {
                Ok(_) => Ok(()),
                Err(error) => Err(TestCaseError::fail(error.to_string())),
            })
            .unwrap();
    }

    #[test]
    fn the_default_allows_null_and_terminals_and_nothing_of_the_hosts() {
        let rules = DeviceRules::docker_default();
        let read_write = DeviceAccess {
            read: true,
            write: true,
            mknod: false,
        };
        assert!(rules.allows(DeviceKind::Char, 1, 3, read_write));
        assert!(rules.allows(DeviceKind::Char, 136, 77, read_write));
        assert!(rules.allows(DeviceKind::Block, 8, 0, DeviceAccess::MKNOD));
        assert!(!rules.allows(
            DeviceKind::Block,
            8,
            0,
            DeviceAccess {
                read: true,
                ..DeviceAccess::default()
            }
        ));
        assert!(
            !rules.allows(DeviceKind::Char, 1, 1, read_write),
            "/dev/mem"
        );
        assert!(
            !rules.allows(DeviceKind::Char, 10, 229, read_write),
            "/dev/fuse"
        );
        let legacy = rules.legacy().unwrap();
        assert!(!legacy.allow_by_default);
        assert!(
            legacy.exceptions.contains(&"c *:* m".to_owned())
                && legacy.exceptions.contains(&"c 1:3 rwm".to_owned())
        );
        assert!(compile(&rules).len() < 100);
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused_on_v1() {
        let mut rules = DeviceRules::unrestricted();
        rules.push(DeviceRule::all(false));
        rules.push(DeviceRule::allow_char(Some(10), None, DeviceAccess::ALL));
        rules.push(DeviceRule {
            allow: false,
            ..DeviceRule::allow_char(Some(10), Some(229), DeviceAccess::ALL)
        });
        let error = rules.legacy().unwrap_err();
        assert!(error.to_string().contains("10:229"), "{error}");
    }
}
