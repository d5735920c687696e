//! The report as JUnit XML, which CI systems read.

use std::fmt::Write;

use super::definition::Suite;
use super::report::{Outcome, Report, Verdict};

/// The XML of a run: a test suite for each suite of scenarios.
#[must_use]
pub fn junit(report: &Report) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string does not fail.
    let _ = suites(&mut xml, report);
    xml
}

fn suites(xml: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        xml,
        "<testsuites name=\"provision test\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
        report.scenarios.len(),
        report.failed,
        report.errors,
        report.skipped,
        report.seconds
    )?;
    for suite in [Suite::Bootstrap, Suite::BootstrapErrors] {
        let of: Vec<&Outcome> = report
            .scenarios
            .iter()
            .filter(|outcome| outcome.suite == suite)
            .collect();
        if of.is_empty() {
            continue;
        }
        let count = |verdict| of.iter().filter(|one| one.verdict == verdict).count();
        writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
            suite.name(),
            of.len(),
            count(Verdict::Failed),
            count(Verdict::Error),
            count(Verdict::Skipped),
            of.iter().map(|outcome| outcome.seconds).sum::<f64>()
        )?;
        writeln!(
            xml,
            "    <properties>\n      <property name=\"binary\" value=\"{}\"/>\n      <property name=\"version\" value=\"{}\"/>\n    </properties>",
            escaped(&report.binary),
            escaped(&report.version)
        )?;
        for outcome in of {
            case(xml, outcome)?;
        }
        writeln!(xml, "  </testsuite>")?;
    }
    writeln!(xml, "</testsuites>")
}

fn case(xml: &mut String, outcome: &Outcome) -> std::fmt::Result {
    write!(
        xml,
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
        outcome.suite.name(),
        escaped(&outcome.id),
        outcome.seconds
    )?;
    let element = match outcome.verdict {
        Verdict::Passed => return writeln!(xml, "/>"),
        Verdict::Failed => "failure",
        Verdict::Error => "error",
        Verdict::Skipped => "skipped",
    };
    writeln!(xml, ">")?;
    match &outcome.failure {
        Some(found) => writeln!(
            xml,
            "      <{element} message=\"{}\">{}</{element}>",
            escaped(&format!("{}: expected {}", found.step, found.expected)),
            escaped(&found.to_string())
        )?,
        None => writeln!(
            xml,
            "      <{element} message=\"{}\"/>",
            escaped(outcome.reason.as_deref().unwrap_or_default())
        )?,
    }
    writeln!(xml, "    </testcase>")
}

/// Text inside an element or an attribute. What XML cannot hold at all, such as a terminal's escapes, is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // In an attribute a reader would make a blank of it.
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::failure::Found;

    fn outcome(id: &str, suite: Suite, verdict: Verdict) -> Outcome {
        Outcome {
            id: id.to_owned(),
            suite,
            source: "a guide",
            verdict,
            seconds: 0.25,
            reason: (verdict == Verdict::Skipped).then(|| "needs \"more\"".to_owned()),
            failure: (verdict == Verdict::Failed).then(|| Found {
                step: "up".to_owned(),
                expected: "a < b & c".to_owned(),
                got: "\u{1b}[31mred\u{1b}[0m\u{1}".to_owned(),
                log: vec!["infra0: said".to_owned()],
                again: "provision test".to_owned(),
            }),
        }
    }

    #[test]
    fn what_failed_and_what_was_skipped_is_told_apart() {
        let scenarios = vec![
            outcome("a", Suite::Bootstrap, Verdict::Passed),
            outcome("b", Suite::Bootstrap, Verdict::Failed),
            outcome("c", Suite::BootstrapErrors, Verdict::Skipped),
        ];
        let report = Report::new("/m".into(), "member 1".into(), 1.5, scenarios);
        let xml = junit(&report);
        for part in [
            "<testsuites name=\"provision test\" tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"1.500\">",
            "<testsuite name=\"bootstrap\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\" time=\"0.500\">",
            "<testcase classname=\"bootstrap\" name=\"a\" time=\"0.250\"/>",
            "<failure message=\"up: expected a &lt; b &amp; c\">",
            "got:      [31mred[0m&#10;",
            "| infra0: said",
            "<skipped message=\"needs &quot;more&quot;\"/>",
        ] {
            assert!(xml.contains(part), "{part} is not in\n{xml}");
        }
        assert!(xml.chars().all(|c| c == '\n' || !c.is_control()));
    }
}
