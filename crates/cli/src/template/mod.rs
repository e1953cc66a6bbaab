//! The part of Go's text/template that users of `--format` write, evaluated over JSON values.
//!
//! [`Template::parse`] makes a tree ([`parse`]); [`Template::render`] walks it ([`eval`]) with the functions of
//! [`functions`]. There are no user-defined templates, no methods but `.Label "key"`, and no way for a template to
//! reach anything but the value it was given.
//!
//! JSON does not tell a struct from a map, which Go's rules for absent fields need. The rule here: an absent key that
//! begins with a capital letter is an error, except in the condition of `if`, `with`, `and`, `or` and `not`, where it
//! is false; any other absent key is `<no value>`.

mod eval;
mod functions;
mod parse;

use serde_json::{Map, Value};

/// A template that was parsed.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    nodes: Vec<parse::Node>,
    source: String,
}

/// What is wrong with a template, or with its use on a value.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum TemplateError {
    /// The text is not a template.
    #[error("the template {template:?} cannot be parsed: {problem}")]
    Parse {
        /// As typed.
        template: String,
        /// What is wrong, where.
        problem: String,
    },
    /// The value does not have what the template asks for.
    #[error("the template {template:?} cannot be applied: {problem}")]
    Apply {
        /// As typed.
        template: String,
        /// What is wrong.
        problem: String,
    },
}

impl Template {
    /// Parses `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        match parse::parse(text) {
            Ok(nodes) => Ok(Self {
                nodes,
                source: text.to_owned(),
            }),
            Err(problem) => Err(TemplateError::Parse {
                template: text.to_owned(),
                problem,
            }),
        }
    }

    /// Renders over `root`; `labels` is what `.Label "key"` looks into.
    pub(crate) fn render(
        &self,
        root: &Value,
        labels: Option<&Map<String, Value>>,
    ) -> Result<String, TemplateError> {
        let mut output = String::new();
        eval::Evaluation::new(root, labels)
            .nodes(&self.nodes, root, &mut output)
            .map_err(|problem| TemplateError::Apply {
                template: self.source.clone(),
                problem,
            })?;
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value() -> Value {
        json!({
            "Name": "web", "ID": "abc", "Count": 3, "Ratio": 0.5, "Yes": true, "Empty": "", "Nothing": null,
            "State": {"Status": "running", "Pid": 42},
            "List": ["a", "b", "c"], "Numbers": [1, 2, 3],
            "Config": {"Labels": {"com.example/x": "1", "y": "2"}, "Env": ["A=1", "B=2"]},
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null},
            "Mounts": [{"Type": "bind", "Source": "/a"}, {"Type": "volume", "Source": "v"}]
        })
    }

    #[test]
    fn templates_render_as_gos() {
        let cases: &[(&str, &str)] = &[
            ("plain", "plain"),
            ("{{.Name}}", "web"),
            ("{{ .State.Status }}:{{.State.Pid}}", "running:42"),
            (
                "{{.Count}} {{.Ratio}} {{.Yes}} {{.Nothing}}",
                "3 0.5 true <no value>",
            ),
            ("{{json .State}}", r#"{"Pid":42,"Status":"running"}"#),
            ("{{json .Name}}{{ json .List }}", r#""web"["a","b","c"]"#),
            ("{{.List}}", "[a b c]"),
            ("{{.Config.Labels}}", "map[com.example/x:1 y:2]"),
            (r#"{{index .Config.Labels "com.example/x"}}"#, "1"),
            (r#"{{index .Config.Labels "missing"}}"#, "<no value>"),
            ("{{.Config.Labels.y}}{{.Config.Labels.z}}", "2<no value>"),
            ("{{index .List 1}}", "b"),
            (r#"{{(index (index .Ports "80/tcp") 0).HostPort}}"#, "8080"),
            (r#"{{index .Ports "80/tcp" 0 "HostPort"}}"#, "8080"),
            ("{{range .List}}{{.}},{{end}}", "a,b,c,"),
            (
                "{{range $i, $v := .List}}{{$i}}={{$v}} {{end}}",
                "0=a 1=b 2=c ",
            ),
            (
                "{{range $p, $c := .Ports}}{{$p}}->{{if $c}}{{(index $c 0).HostPort}}{{else}}-{{end}} {{end}}",
                "80/tcp->8080 81/tcp->- ",
            ),
            (
                "{{range .Mounts}}{{.Type}}:{{.Source}} {{$.Name}} {{end}}",
                "bind:/a web volume:v web ",
            ),
            ("{{range .Empty2}}x{{else}}none{{end}}", ""),
            ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
            (
                "{{range .List}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}",
                "ac",
            ),
            (
                "{{range .List}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}",
                "a",
            ),
            (
                "{{if .Yes}}y{{else}}n{{end}}{{if .Empty}}y{{else}}n{{end}}",
                "yn",
            ),
            (
                "{{if .State.Health}}h{{else if eq .Count 3}}three{{else}}n{{end}}",
                "three",
            ),
            (
                "{{with .State}}{{.Pid}}{{end}}{{with .Empty}}x{{else}}e{{end}}",
                "42e",
            ),
            (
                "{{if and .Yes (eq .Name \"web\") (not .Empty)}}ok{{end}}",
                "ok",
            ),
            ("{{or .Empty .Name}}{{and .Yes .Count}}", "web3"),
            (
                "{{if ne .Name \"x\"}}ne{{end}}{{if lt 1 2}}lt{{end}}{{if ge .Count 3}}ge{{end}}",
                "neltge",
            ),
            ("{{eq .Name \"a\" \"web\"}}", "true"),
            (
                "{{upper .Name}} {{lower \"ABC\"}} {{title \"two words\"}}",
                "WEB abc Two Words",
            ),
            (
                "{{join .List \"-\"}} {{len .List}} {{len .Name}}",
                "a-b-c 3 3",
            ),
            ("{{.Name | upper | printf \"<%s>\"}}", "<WEB>"),
            ("{{index (split \"a:b:c\" \":\") 2}}", "c"),
            (
                r#"{{printf "%s %d %q %v %t %5d|%-5s|%05d %x %.2f %%" .Name .Count .Name .List .Yes 7 "ab" 42 255 .Ratio}}"#,
                "web 3 \"web\" [a b c] true     7|ab   |00042 ff 0.50 %",
            ),
            (
                "{{print .Name .Count}}{{println .Name .Count}}",
                "web3web 3\n",
            ),
            ("a {{- \" b \" -}} c", "a b c"),
            ("a\n{{- /* comment */ -}}\nb", "ab"),
            ("{{$x := .Name}}{{$x}}{{$x = \"y\"}}{{$x}}", "weby"),
            (
                "{{`raw \"text\"`}}{{\"tab\\tq\\\"\"}}",
                "raw \"text\"tab\tq\"",
            ),
            ("{{true}} {{1.5}} {{nil | len}}", "ERR"),
            (
                "{{truncate .State.Status 3}}|{{pad .Name 1 2}}|",
                "run| web  |",
            ),
            ("{{slice .Name 1}}{{slice .ID 0 2}}", "ebab"),
            ("{{json .}}", ""),
        ];
        for (template, expected) in cases {
            let rendered = Template::parse(template).and_then(|t| t.render(&value(), None));
            match *expected {
                "ERR" => assert!(rendered.is_err(), "{template}"),
                "" if *template == "{{json .}}" => assert_eq!(rendered, Ok(value().to_string())),
                // An absent capitalised field outside a condition.
                "" => assert!(rendered.is_err(), "{template}"),
                _ => assert_eq!(rendered.as_deref(), Ok(*expected), "{template}"),
            }
        }
    }

    #[test]
    fn labels_are_a_method() {
        let labels = json!({"a": "1"});
        let render =
            |text: &str| Template::parse(text).and_then(|t| t.render(&value(), labels.as_object()));
        assert_eq!(render("{{.Label \"a\"}}|{{.Label \"b\"}}"), Ok("1|".into()));
        assert_eq!(
            render("{{with .List}}{{$.Label \"a\"}}{{end}}"),
            Ok("1".into())
        );
    }

    #[test]
    fn broken_templates_say_where() {
        for text in [
            "{{",
            "{{.Name",
            "{{if .X}}",
            "{{end}}",
            "{{else}}",
            "{{nofunction .Name}}",
            "{{.Name | }}",
            "{{\"open}}",
            "{{range}}{{end}}",
            "{{define \"x\"}}{{end}}",
            "{{(.Name}}",
            "{{.Name)}}",
            "{{$}",
            "{{if .X}}{{else}}{{else}}{{end}}",
        ] {
            assert!(
                matches!(Template::parse(text), Err(TemplateError::Parse { .. })),
                "{text}"
            );
        }
        for text in [
            "{{.Missing}}",
            "{{.Name.Deeper}}",
            "{{index .List 9}}",
            "{{index .Name \"x\"}}",
            "{{range .Count2}}{{end}}",
            "{{$x}}",
            "{{lt .List 1}}",
        ] {
            assert!(
                Template::parse(text)
                    .and_then(|t| t.render(&value(), None))
                    .is_err(),
                "{text}"
            );
        }
    }
}
