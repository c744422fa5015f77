//! What the tables' code needs of a database, and what differs between the two that we know.
//!
//! One SQL text serves both: `?` for each value in order, backticks around the one name that is a reserved word. Where they
//! differ, a [`Dialect`] has the words. In: text and [`Value`]s, never values inside of the text. Out: [`Row`]s, or a [`Fault`]
//! that says what may be done about it. Not here: connections (`sqlite`, `mysql`), when to begin and to commit (`session`).

use sipbox_core::time::Instant;

/// One value, on its way in or out.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// For a column of times: `location`'s. On its way out only of MySQL; SQLite has no such type.
    Time(Instant),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Value::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Int(i64::from(number))
    }
}

impl From<Instant> for Value {
    fn from(at: Instant) -> Self {
        Value::Time(at)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// Values in the order of their `?`.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::sql::Value::from($value)),*] };
}
pub(super) use values;

/// One row, its columns in the order of the SELECT. A column that holds something else than is asked for, as SQLite allows,
/// reads as the nearest thing: no row that somebody wrote by hand may stop a server.
pub(super) struct Row(pub Vec<Value>);

impl Row {
    pub fn value(&self, index: usize) -> &Value {
        self.0.get(index).unwrap_or(&Value::Null)
    }

    pub fn text(&self, index: usize) -> String {
        self.some(index).unwrap_or_default()
    }

    /// None for NULL and for nothing.
    pub fn some(&self, index: usize) -> Option<String> {
        let text = match self.value(index) {
            Value::Text(text) => text.clone(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Int(number) => number.to_string(),
            Value::Real(number) => number.to_string(),
            Value::Null | Value::Time(_) => String::new(),
        };
        (!text.is_empty()).then_some(text)
    }

    pub fn bytes(&self, index: usize) -> Vec<u8> {
        match self.value(index) {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Text(text) => text.clone().into_bytes(),
            Value::Null | Value::Int(_) | Value::Real(_) | Value::Time(_) => Vec::new(),
        }
    }

    pub fn int(&self, index: usize) -> i64 {
        match self.value(index) {
            Value::Int(number) => *number,
            Value::Real(number) => *number as i64,
            Value::Text(text) => text.trim().parse().unwrap_or(0),
            Value::Null | Value::Bytes(_) | Value::Time(_) => 0,
        }
    }

    /// A number that cannot be less than nothing.
    pub fn count(&self, index: usize) -> u32 {
        self.int(index).clamp(0, i64::from(u32::MAX)) as u32
    }

    /// Bits, in a column of signed numbers.
    pub fn bits(&self, index: usize) -> Option<u32> {
        (*self.value(index) != Value::Null).then(|| self.int(index) as u32)
    }

    pub fn real(&self, index: usize) -> Option<f64> {
        match self.value(index) {
            Value::Real(number) => Some(*number),
            Value::Int(number) => Some(*number as f64),
            Value::Text(text) => text.trim().parse().ok(),
            Value::Null | Value::Bytes(_) | Value::Time(_) => None,
        }
    }
}

/// Bits as Kamailio writes them: its columns are signed.
pub(super) fn signed(bits: u32) -> i64 {
    i64::from(bits as i32)
}

/// Why a statement failed, by what may be done about it. One line, without values and without a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is no longer sound. What was not committed is lost; a commit that was under way is not known to be done.
    Lost(String),
    /// Another process holds it for longer than we wait. The connection is sound.
    Busy(String),
    /// The transaction had to make way for another one: the same once more may work.
    Again(String),
    /// A unique key has it already.
    Duplicate(String),
    /// A value is too long for its column, or has letters that the column does not know.
    DoesNotFit(String),
    /// Anything else: it alone fails, and would again.
    Statement(String),
}

impl Fault {
    pub fn text(&self) -> &str {
        match self {
            Fault::Lost(text)
            | Fault::Busy(text)
            | Fault::Again(text)
            | Fault::Duplicate(text)
            | Fault::DoesNotFit(text)
            | Fault::Statement(text) => text,
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

/// Where the two say the same differently.
pub(super) struct Dialect {
    pub begin: &'static str,
    /// Ends a savepoint that is not needed any more, where it costs nothing.
    pub release: Option<&'static str>,
    /// Behind a SELECT inside of a transaction whose rows are about to be changed.
    pub lock: &'static str,
    /// Names of the tables that are there.
    pub tables: &'static str,
    /// Condition for rows of `location` that may have expired; it takes the values of [`Sql::expired`].
    pub expired: &'static str,
    /// Types of columns, by the words of `schema`.
    pub types: &'static [(&'static str, &'static str)],
    /// Whether indexes are made together with their table, under names of the table's own.
    pub indexes_inside: bool,
    /// Behind the definition of a table.
    pub table_options: &'static str,
}

/// A connection to a database.
pub(super) trait Sql: Send {
    fn dialect(&self) -> &'static Dialect;

    fn rows(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>>;

    /// For a statement without rows.
    fn run(&mut self, sql: &str, values: &[Value]) -> Result<()>;

    /// Statements without values that are not worth preparing: definitions, BEGIN, COMMIT.
    fn plain(&mut self, sql: &str) -> Result<()>;

    /// From here on nobody else makes or alters tables, until `end_schema` or the end of the connection.
    fn begin_schema(&mut self) -> Result<()>;

    fn end_schema(&mut self) -> Result<()>;

    /// What a column of times holds.
    fn time(&self, value: &Value) -> Instant;

    /// What `Dialect::expired` takes.
    fn expired(&self, now: Instant) -> Vec<Value>;
}
