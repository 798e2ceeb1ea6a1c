//! Tables: framed on a terminal, plain columns in a pipe.

use comfy_table::{ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};

use super::output;

/// Heavy lines around the header, light ones below it.
const FRAMED: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('┏', '━', '┳', '┓'))
    .header_lines(ContentLineStyle::new('┃', '┃', '┃'))
    .header_separator(LineStyle::new('┡', '━', '╇', '┩'))
    .content_lines(ContentLineStyle::new('│', '│', '│'))
    .bottom_border(LineStyle::new('└', '─', '┴', '┘'));
/// No lines at all.
const PLAIN: TableStyle = TableStyle::new();

/// Renders rows under a header, as wide as the terminal allows.
pub(crate) fn render(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let terminal = output::is_terminal().then(|| terminal_size::terminal_size().map(|(width, _)| width.0));
    match terminal {
        Some(width) => framed(header, rows, width),
        None => plain(header, rows),
    }
}

fn table(header: &[&str], rows: Vec<Vec<String>>, style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(header.iter().copied()).add_rows(rows);
    table
}

fn framed(header: &[&str], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = table(header, rows, FRAMED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    // Where the width is not known, nothing is wrapped.
    table.set_width(width.unwrap_or(u16::MAX));
    table.to_string()
}

fn plain(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = table(header, rows, PLAIN);
    table.set_content_arrangement(ContentArrangement::Disabled);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        vec![
            vec!["default".to_owned(), "12345".to_owned(), "~/.config/foxxy-bridge/config.json".to_owned()],
            vec!["production".to_owned(), "6".to_owned(), "/etc/foxxy-bridge/prod.json".to_owned()],
        ]
    }

    #[test]
    fn a_terminal_gets_a_frame() {
        insta::assert_snapshot!(framed(&["Name", "PID", "Config File"], rows(), Some(80)), @r"
        ┏━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
        ┃ Name       ┃ PID   ┃ Config File                        ┃
        ┡━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
        │ default    │ 12345 │ ~/.config/foxxy-bridge/config.json │
        │ production │ 6     │ /etc/foxxy-bridge/prod.json        │
        └────────────┴───────┴────────────────────────────────────┘
        ");
    }

    #[test]
    fn a_narrow_terminal_gets_all_of_it_over_more_lines() {
        insta::assert_snapshot!(framed(&["Name", "PID", "Config File"], rows(), Some(40)), @r"
        ┏━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━━━━━┓
        ┃ Name       ┃ PID   ┃ Config File     ┃
        ┡━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━━━━━┩
        │ default    │ 12345 │ ~/.config/foxxy │
        │            │       │ -bridge/config. │
        │            │       │ json            │
        │ production │ 6     │ /etc/foxxy-brid │
        │            │       │ ge/prod.json    │
        └────────────┴───────┴─────────────────┘
        ");
    }

    #[test]
    fn a_pipe_gets_columns() {
        insta::assert_snapshot!(plain(&["Name", "PID", "Config File"], rows()), @r"
        Name        PID    Config File
        default     12345  ~/.config/foxxy-bridge/config.json
        production  6      /etc/foxxy-bridge/prod.json
        ");
    }
}
