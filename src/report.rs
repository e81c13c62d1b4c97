//! A page of results, whoever made them: what `slabd stress` and `slabd lab` have in common.
//!
//! A [`Page`] is plain data: tables, plots and verdicts, in their order. It is printed as text, or written as one HTML file
//! that needs nothing beside itself.

pub mod figures;
pub mod html;
pub mod text;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// `slabd stress ping resp://127.0.0.1:6379`.
    pub title: String,
    /// What was done, with the figures that matter to repeat it: a sentence or two.
    pub summary: String,
    pub sections: Vec<Section>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Section {
    Heading(String),
    Paragraph(String),
    Table(Table),
    Plot(Plot),
    Verdict(Verdict),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub title: String,
    pub columns: Vec<String>,
    /// As many cells each as there are columns. All but the first are set flush right, as figures are.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The names of the columns stand in one text, with ` | ` between them.
    pub fn new(title: &str, columns: &str, rows: impl IntoIterator<Item = Vec<String>>) -> Table {
        let columns = columns.split('|').map(|name| name.trim().to_string()).collect();
        Table { title: title.into(), columns, rows: rows.into_iter().collect() }
    }
}

/// Lines over a common axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plot {
    pub title: String,
    /// With its unit: `seconds`, `connections`.
    pub x_label: String,
    /// With its unit: `microseconds`.
    pub y_label: String,
    pub y_is_logarithmic: bool,
    pub x: Vec<f64>,
    /// As many values each as `x` has. None: a gap.
    pub series: Vec<Series>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

/// What was claimed, what was measured, and whether that bears the claim out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    pub claim: String,
    pub measured: String,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    Holds,
    /// The measurement contradicts the claim.
    Fails,
    /// It could not be measured here; the verdict says why.
    #[default]
    Untried,
}
