//! The little markup of texts: a blank line begins a paragraph, `- ` a list's item.

/// The text with single blank lines between its parts and no white space at ends of lines.
pub(super) fn tidy(rendered: &str) -> String {
    blocks(rendered).iter().map(|block| block.join("\n")).collect::<Vec<_>>().join("\n\n")
}

/// Paragraphs and lists as HTML. What was rendered has its values escaped already.
pub(super) fn to_html(rendered: &str) -> String {
    let mut html = String::new();
    for block in blocks(rendered) {
        for run in block.chunk_by(|a, b| item(a).is_some() == item(b).is_some()) {
            if item(run[0]).is_some() {
                html.push_str("<ul>\n");
                for text in run.iter().filter_map(|line| item(line)) {
                    html.extend(["<li>", text, "</li>\n"]);
                }
                html.push_str("</ul>\n");
            } else {
                html.extend(["<p>", &run.join("<br>\n"), "</p>\n"]);
            }
        }
    }
    html
}

fn item(line: &str) -> Option<&str> {
    line.strip_prefix("- ")
}

/// The lines of each block.
fn blocks(rendered: &str) -> Vec<Vec<&str>> {
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    let mut begins = true;
    for line in rendered.lines().map(str::trim_end) {
        if line.is_empty() {
            begins = true;
        } else if let (false, Some(block)) = (begins, blocks.last_mut()) {
            block.push(line);
        } else {
            blocks.push(vec![line]);
            begins = false;
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_lists_become_elements() {
        let text = "Hello,\nyou\n\n\n- one  \n- two\n\nend\n";
        assert_eq!(tidy(text), "Hello,\nyou\n\n- one\n- two\n\nend");
        assert_eq!(to_html(text), "<p>Hello,<br>\nyou</p>\n<ul>\n<li>one</li>\n<li>two</li>\n</ul>\n<p>end</p>\n");
    }
}
