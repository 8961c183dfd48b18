use std::{fs, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use millrace_engine::experiment::Settings;
use std::io::Write;

use super::{
    EvaluateError, counts, decisions, looks,
    table::Table,
    users::{self, UsersReport, UsersShape},
};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn add(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        if name.ends_with(".gz") {
            let mut gz = GzEncoder::new(fs::File::create(&path).unwrap(), Compression::fast());
            gz.write_all(content.as_bytes()).unwrap();
            gz.finish().unwrap();
        } else {
            fs::write(&path, content).unwrap();
        }
        path
    }
}

fn shape(metrics: &[&str]) -> UsersShape {
    UsersShape {
        user: Some("user".to_owned()),
        variant: "variant".to_owned(),
        metrics: metrics.iter().map(|m| m.parse().unwrap()).collect(),
        control: None,
        weights: [].into(),
        settings: Settings::default(),
    }
}

fn show(content: &str, shape: &UsersShape) -> Result<UsersReport, EvaluateError> {
    let files = Files::new();
    users::read(&[(None, files.add("users.csv.gz", content))], shape)
}

#[test]
fn rows_of_a_user_are_added_up_and_crossovers_left_out() {
    let rows = "user,clicks,shown,variant\nu1,1,4,old\nu2,0,2,new\nu1,2,6,old\nu3,5,5,old\nu3,5,5,new\nu4,1,2,new\n";
    let found = show(rows, &shape(&["ctr=clicks/shown", "clicks=clicks"])).unwrap();
    assert_eq!(found.crossovers, 1);
    let [ctr, clicks] = &found.report.metrics[..] else { panic!("{:?}", found.report.metrics) };
    assert_eq!((ctr.variants[0].users, ctr.variants[0].value), (1, Some(0.3)));
    assert_eq!((ctr.variants[1].users, ctr.variants[1].value), (2, Some(0.25)));
    assert_eq!((clicks.variants[0].value, clicks.variants[1].value), (Some(3.0), Some(0.5)));
    assert_eq!(found.report.control, "old", "the first in the file");
}

#[test]
fn rows_on_their_own_and_files_of_variants() {
    let files = Files::new();
    let first = (Some("a".to_owned()), files.add("a.csv", "user,click\nx,1\nx,0\n"));
    let second = (Some("b".to_owned()), files.add("b.csv", "click\n0\n0\n0\n"));
    let each_row = UsersShape { user: None, ..shape(&["ctr=click"]) };
    let found = users::read(&[first, second], &each_row).unwrap().report;
    assert_eq!(found.metrics[0].variants.iter().map(|v| v.users).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(found.metrics[0].variants[0].value, Some(0.5));
}

#[test]
fn control_and_weights_are_looked_up() {
    let rows = "user,variant,x\n1,a,1\n2,control,1\n3,a,1\n";
    let weighted = UsersShape { weights: [("a".into(), 2.0), ("control".into(), 1.0)].into(), ..shape(&["m=x"]) };
    let found = show(rows, &weighted).unwrap().report;
    assert_eq!(found.control, "control");
    assert!(found.sample_ratio.is_some_and(|r| r.p_value == 1.0));
    let wrong = [
        UsersShape { control: Some("c".to_owned()), ..shape(&["m=x"]) },
        UsersShape { weights: [("a".into(), 1.0)].into(), ..shape(&["m=x"]) },
        UsersShape { weights: [("c".into(), 1.0)].into(), ..shape(&["m=x"]) },
    ];
    for shape in wrong {
        let error = show(rows, &shape).err().unwrap();
        assert!(error.is_usage() && error.to_string().contains("variant `c"), "{error}");
    }
}

#[test]
fn what_cannot_be_read_is_told_with_its_line() {
    let shape = shape(&["m=x"]);
    for (rows, says) in [
        ("user,variant,x\n1,a,1\n2,b,\n", "line 3: `x` is a number, not ``"),
        ("user,variant,x\n1,a,inf\n", "line 2: `x` is a number, not `inf`"),
        ("user,variant,x\n1,,1\n", "line 2: a row without a variant"),
        ("user,variant,x\n,a,1\n", "line 2: a row without a user"),
        ("user,variant,x\n1,a\n", "line 2: 2 cells, but the header has 3 columns"),
        ("user,variant,x\n", "holds no row"),
        ("", "no column `user`"),
        ("user,variant,x\n1,a,1\n", "only one variant"),
    ] {
        let error = show(rows, &shape).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
    for metric in ["ctr", "=x", "a=", "a=x/"] {
        assert!(metric.parse::<users::MetricColumns>().is_err(), "{metric}");
    }
}

#[test]
fn a_cut_off_gzip_file_is_an_error() {
    let files = Files::new();
    let path = files.add("rows.csv.gz", &("a\n".to_owned() + &"1\n".repeat(5_000)));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let read = || -> Result<(), EvaluateError> {
        let mut table = Table::open(&path)?;
        while table.advance()? {}
        Ok(())
    };
    assert!(matches!(read(), Err(EvaluateError::Io { .. })));
}

fn counts_shape() -> counts::CountsShape {
    let [arm, impressions, clicks] = ["arm", "impressions", "clicks"].map(str::to_owned);
    counts::CountsShape { test: vec!["test".to_owned()], arm, impressions, clicks }
}

#[test]
fn counts_are_grouped_by_test_and_checked() {
    let files = Files::new();
    let rows = "test,arm,impressions,clicks\nt2,a,1000,10\nt1,a,500,5\nt2,b,1000,60\nt1,b,900,9\n";
    let tests = counts::read(&files.add("counts.csv", rows), &counts_shape()).unwrap();
    assert_eq!(tests.iter().map(|t| t.test.as_str()).collect::<Vec<_>>(), ["t1", "t2"]);
    let found = counts::summary(&tests);
    assert_eq!((found.tests, found.arms, found.impressions, found.clicks), (2, 4, 3_400, 84));
    assert_eq!((found.different_below_05, found.different_below_01), (1, 1));
    assert_eq!((found.sample_ratio_below_01, found.sample_ratio_below_001), (1, 1));
    for (rows, says) in [
        ("test,arm,impressions,clicks\nt,a,5,6\n", "line 2: 6 clicks in 5 impressions"),
        ("test,arm,impressions,clicks\nt,a,5,-1\n", "`clicks` is a whole number from 0, not `-1`"),
        ("test,arm,impressions,clicks\nt,a,5,1\nt,a,5,1\n", "line 3: arm `a` of test `t` was there before"),
        ("arm,impressions,clicks\na,5,1\n", "no column `test`"),
    ] {
        let error = counts::read(&files.add("wrong.csv", rows), &counts_shape()).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn looks_without_a_variance_are_left_out() {
    let files = Files::new();
    let rows = format!(
        "{}\ne,1,m,1,100,100,1,1.1,1,1\ne,1,m,2,200,200,1,1.5,1,1\ne,1,m,3,300,300,1,1,,\ne,2,m,1,9,9,1,1,,\n",
        looks::COLUMNS.join(",")
    );
    let treatments = looks::read(&files.add("looks.csv", &rows), 0.02).unwrap();
    assert_eq!(treatments.len(), 1, "{treatments:?}");
    assert_eq!(treatments[0].report.looks, 2);
    let summary = looks::summary(&treatments);
    assert_eq!((summary.len(), summary[0].last_look, summary[0].any_look), (1, 1, 1));
}

#[test]
fn target_policies_are_checked_with_the_names_of_the_file() {
    let files = Files::new();
    let shape = decisions::DecisionsShape {
        item: vec!["item".to_owned()],
        position: "position".to_owned(),
        reward: vec!["reward".to_owned()],
        propensity: vec!["propensity".to_owned()],
        probability: "probability".to_owned(),
    };
    let log = files.add("log.csv", "item,position,reward,propensity\nx,top,1,0.5\ny,top,0,0.5\nx,end,0,0.25\n");
    let mut read = decisions::read(&log, &shape).unwrap();
    assert_eq!(read.uniform().probability(1, 1), 0.5);
    let policy = files.add("policy.csv", "probability,item,position\n0.9,y,top\n0.1,z,top\n1,x,end\n");
    let policy = read.policy(&policy, &shape).unwrap();
    let of = |n: usize| policy.probability(read.decisions[n].item, read.decisions[n].position);
    assert_eq!([of(0), of(1), of(2)], [0.0, 0.9, 1.0]);
    for (rows, says) in [
        ("item,position,probability\nx,top,0.5\nx,end,1\n", "position `top`"),
        ("item,position,probability\nx,top,1\n", "position `end`"),
        ("item,position,probability\nx,top,1\nx,top,0\nx,end,1\n", "item `x`"),
        ("item,position,probability\nx,top,2\nx,end,1\n", "not 2"),
        ("item,probability\nx,1\n", "no column `position`"),
    ] {
        let error = decisions::read(&log, &shape).unwrap().policy(&files.add("wrong.csv", rows), &shape);
        let error = error.err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
    let zero = files.add("zero.csv", "item,reward,propensity\nx,1,0\n");
    let error = decisions::read(&zero, &shape).err().unwrap().to_string();
    assert!(error.contains("line 2: a propensity must be above 0"), "{error}");
}
