//! Renders the prompt of a row: the vendor's sentences, or a configured minijinja template.
//!
//! A template is compiled once per job. Its rendering is limited in instructions, and an unknown column is an error.

use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior};

use crate::model::vendor_prompt::{CLOSING, OPENING};

/// The fields of a row that the vendor's prompt uses.
#[derive(Debug, Clone, Copy)]
pub struct PromptFields<'a> {
    /// Product title.
    pub title: &'a str,
    /// Brand; may be empty.
    pub brand: &'a str,
    /// Style cues; may be empty.
    pub style_tags: &'a str,
}

/// Renders prompts, with the vendor's sentences or with a configured template.
#[derive(Clone)]
pub struct Prompt {
    template: Option<Arc<Environment<'static>>>,
}

/// The template cannot be compiled or rendered. This ends the job, because the template is the same for every row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the prompt template cannot be used: {0}")]
pub struct TemplateError(pub String);

const TEMPLATE: &str = "prompt";
/// The instructions that one rendering may use. A template that loops must not delay a job of a million rows.
const FUEL: u64 = 50_000;

impl Prompt {
    /// Compiles a template, if one is configured.
    pub fn new(template: Option<&str>) -> Result<Self, TemplateError> {
        let Some(template) = template else { return Ok(Self { template: None }) };
        let mut environment = Environment::new();
        // A misspelt column must fail at the first row, not be left out of ten thousand prompts.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.add_template_owned(TEMPLATE, template.to_owned()).map_err(|e| TemplateError(format!("{e:#}")))?;
        Ok(Self { template: Some(Arc::new(environment)) })
    }

    /// Renders the prompt of one row into `text`. A template can use `columns` (original names) and the standard fields.
    pub fn render<'a, 't>(
        &self,
        fields: PromptFields<'_>,
        columns: impl Iterator<Item = (&'a str, &'a str)>,
        text: &'t mut String,
    ) -> Result<&'t str, TemplateError> {
        let Some(environment) = &self.template else { return Ok(vendor_prompt(fields, text)) };
        let template = environment.get_template(TEMPLATE).map_err(|e| TemplateError(format!("{e:#}")))?;
        let mut context: std::collections::BTreeMap<&str, &str> = columns.collect();
        context.extend([("title", fields.title), ("brand", fields.brand), ("style_tags", fields.style_tags)]);
        *text = template.render(minijinja::Value::from_pairs(context)).map_err(|e| TemplateError(format!("{e:#}")))?;
        Ok(text)
    }
}

/// Renders the vendor's prompt. A clause whose field is empty is left out.
fn vendor_prompt<'t>(PromptFields { title, brand, style_tags }: PromptFields<'_>, text: &'t mut String) -> &'t str {
    text.clear();
    for (before, field) in [(OPENING, title), ("Brand identity: ", brand), ("Style cues: ", style_tags)] {
        if !field.is_empty() {
            text.extend([before, field, ". "]);
        }
    }
    text.push_str(CLOSING);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUG: PromptFields<'_> =
        PromptFields { title: "Minimalist ceramic mug", brand: "Northline", style_tags: "studio lighting" };

    #[test]
    fn the_vendors_prompt() {
        let prompt = Prompt::new(None).unwrap();
        assert_eq!(
            prompt.render(MUG, std::iter::empty(), &mut String::new()).unwrap(),
            "E-commerce hero product photo of Minimalist ceramic mug. Brand identity: Northline. Style cues: studio lighting. \
             Photorealistic, centered composition, clean edges, no watermark, no extra text."
        );
        let bare = PromptFields { brand: "", style_tags: "", ..MUG };
        assert_eq!(
            prompt.render(bare, std::iter::empty(), &mut String::new()).unwrap(),
            "E-commerce hero product photo of Minimalist ceramic mug. Photorealistic, centered composition, clean edges, \
             no watermark, no extra text."
        );
    }

    #[test]
    fn a_template_sees_all_columns() {
        let prompt = Prompt::new(Some("{{ title }} in {{ colour }}{% if brand %} by {{ brand }}{% endif %}")).unwrap();
        assert_eq!(
            prompt.render(MUG, [("colour", "blue")].into_iter(), &mut String::new()).unwrap(),
            "Minimalist ceramic mug in blue by Northline"
        );
    }

    #[test]
    fn a_broken_template_is_an_error_not_a_panic() {
        assert!(Prompt::new(Some("{{ title")).is_err());
        let misspelt = Prompt::new(Some("{{ tilte }}")).unwrap();
        assert!(misspelt.render(MUG, std::iter::empty(), &mut String::new()).unwrap_err().0.contains("undefined"));
        let endless =
            Prompt::new(Some("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"));
        assert!(endless.unwrap().render(MUG, std::iter::empty(), &mut String::new()).is_err());
    }
}
