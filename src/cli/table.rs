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

/// Renders rows under a header. On a terminal that is too narrow for all of it the columns of `spare` are left out, one
/// after the other: a table whose every cell is broken over lines tells nothing. A pipe gets them all.
pub(crate) fn render(header: &[&str], rows: Vec<Vec<String>>, spare: &[&str]) -> String {
    let terminal = output::is_terminal().then(|| terminal_size::terminal_size().map(|(width, _)| width.0));
    match terminal {
        Some(width) => framed(header, &rows, width.unwrap_or(u16::MAX), spare),
        None => plain(header, rows),
    }
}

fn table(header: &[&str], rows: Vec<Vec<String>>, style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(header.iter().copied()).add_rows(rows);
    table
}

fn framed(header: &[&str], rows: &[Vec<String>], width: u16, spare: &[&str]) -> String {
    let without = |left_out: &[&str]| {
        let kept: Vec<usize> = (0..header.len()).filter(|at| !left_out.contains(&header[*at])).collect();
        let header: Vec<&str> = kept.iter().map(|at| header[*at]).collect();
        let rows = rows.iter().map(|row| kept.iter().map(|at| row[*at].clone()).collect()).collect();
        table(&header, rows, FRAMED)
    };
    for left_out in 0..=spare.len() {
        let mut whole = without(&spare[..left_out]);
        whole.set_content_arrangement(ContentArrangement::Disabled);
        let text = whole.to_string();
        // The frame's characters are one column wide each.
        if text.lines().next().is_some_and(|border| border.chars().count() <= width.into()) {
            return text;
        }
    }
    let mut wrapped = without(spare);
    wrapped.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    wrapped.to_string()
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

    const HEADER: [&str; 3] = ["Name", "PID", "Config File"];

    #[test]
    fn a_terminal_gets_a_frame() {
        insta::assert_snapshot!(framed(&HEADER, &rows(), 80, &["PID"]), @r"
        ┏━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
        ┃ Name       ┃ PID   ┃ Config File                        ┃
        ┡━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
        │ default    │ 12345 │ ~/.config/foxxy-bridge/config.json │
        │ production │ 6     │ /etc/foxxy-bridge/prod.json        │
        └────────────┴───────┴────────────────────────────────────┘
        ");
    }

    #[test]
    fn a_narrow_terminal_gets_what_matters_most() {
        insta::assert_snapshot!(framed(&HEADER, &rows(), 54, &["PID"]), @r"
        ┏━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
        ┃ Name       ┃ Config File                        ┃
        ┡━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
        │ default    │ ~/.config/foxxy-bridge/config.json │
        │ production │ /etc/foxxy-bridge/prod.json        │
        └────────────┴────────────────────────────────────┘
        ");
    }

    #[test]
    fn a_very_narrow_terminal_gets_it_over_more_lines() {
        insta::assert_snapshot!(framed(&HEADER, &rows(), 40, &["PID"]), @r"
        ┏━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━┓
        ┃ Name       ┃ Config File             ┃
        ┡━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━┩
        │ default    │ ~/.config/foxxy-bridge/ │
        │            │ config.json             │
        │ production │ /etc/foxxy-bridge/prod. │
        │            │ json                    │
        └────────────┴─────────────────────────┘
        ");
    }

    #[test]
    fn a_pipe_gets_columns() {
        insta::assert_snapshot!(plain(&HEADER, rows()), @r"
        Name        PID    Config File
        default     12345  ~/.config/foxxy-bridge/config.json
        production  6      /etc/foxxy-bridge/prod.json
        ");
    }
}
