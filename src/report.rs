//! A page of results, for `slabd stress` and `slabd lab` alike.
//!
//! A [`Page`] is plain data: tables, plots and verdicts in order. It is printed as text, or written
//! as one HTML file that loads nothing else.

pub mod figures;
pub mod html;
pub mod text;

/// A page: a title, a summary, and sections in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The command that made the page: `slabd stress ping resp://127.0.0.1:6379`.
    pub title: String,
    /// A sentence or two about the run, with the figures needed to repeat it.
    pub summary: String,
    pub sections: Vec<Section>,
}

/// One part of a page.
#[derive(Clone, Debug, PartialEq)]
pub enum Section {
    Heading(String),
    Paragraph(String),
    Table(Table),
    Plot(Plot),
    Verdict(Verdict),
}

/// A table of text cells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub title: String,
    pub columns: Vec<String>,
    /// Rows with one cell per column. All cells but the first are aligned right.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table. `columns` has the names of the columns, separated by ` | `.
    pub fn new(title: &str, columns: &str, rows: impl IntoIterator<Item = Vec<String>>) -> Table {
        let columns = columns.split('|').map(|name| name.trim().to_string()).collect();
        Table { title: title.into(), columns, rows: rows.into_iter().collect() }
    }
}

/// Lines over a common axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plot {
    pub title: String,
    /// Unit of the x axis: `seconds`, `connections`.
    pub x_label: String,
    /// Unit of the y axis: `microseconds`.
    pub y_label: String,
    pub y_is_logarithmic: bool,
    pub x: Vec<f64>,
    /// Series with one value per point of `x`; `None` is a gap.
    pub series: Vec<Series>,
}

/// A named line of a plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

/// A claim, its measurement, and the outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    pub claim: String,
    pub measured: String,
    pub outcome: Outcome,
}

/// The outcome of a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The measurement supports the claim.
    Holds,
    /// The measurement contradicts the claim.
    Fails,
    /// The claim could not be measured on this machine; the verdict says why.
    #[default]
    Untried,
}
