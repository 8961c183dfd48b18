//! Events as the shop's clients write them: JSON, in two versions of the schema, and sometimes broken.

use std::{fmt::Write as _, sync::Arc};

use super::{
    catalog::{ItemId, sku},
    settings::*,
    shopper::ShopperId,
};

/// What all events of a visit say.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub shopper: ShopperId,
    pub visit: u64,
    pub platform: u8,
    pub locale: u8,
    pub version: u8,
    pub logged_in: bool,
    pub bot: bool,
}

#[derive(Clone, Debug)]
pub enum What {
    /// No pipeline has asked for it.
    Login,
    Consent(bool),
    Impression {
        decision: Option<Arc<str>>,
        shown: Vec<ItemId>,
    },
    Click {
        decision: Option<Arc<str>>,
        item: ItemId,
    },
    View(ItemId),
    CartAdd(ItemId),
    /// Item and price in cents.
    Order(Vec<(ItemId, u32)>),
}

#[derive(Clone, Debug)]
pub struct Event {
    /// When it happened, in world time.
    pub at: Micros,
    pub number: u64,
    pub head: Head,
    pub what: What,
    pub fault: Fault,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    CutOff,
    WrongType,
    ClockADayAhead,
}

const DAY_MS: i64 = 86_400_000;

/// Of a shopper, as the shop knows them.
pub fn customer(shopper: ShopperId) -> String {
    format!("c{shopper:06}")
}

/// Of a visit. `run` tells runs apart.
pub fn session(run: i64, visit: u64) -> String {
    format!("s{run:x}-{visit:x}")
}

impl Event {
    /// One JSON object. `start`: microseconds since 1970 at world time 0; `run`: tells runs apart, in ids.
    pub fn json(&self, start: Micros, run: i64) -> String {
        let mut out = String::with_capacity(256);
        // Writing into a string cannot fail.
        let _ = self.write(&mut out, start, run);
        if self.fault == Fault::CutOff {
            out.truncate(out.len() * 2 / 3);
        }
        out
    }

    fn write(&self, out: &mut String, start: Micros, run: i64) -> std::fmt::Result {
        let Head { shopper, visit, platform, locale, version, logged_in, bot } = self.head;
        let (topic, kind) = match self.what {
            What::Login => ("identity", "login"),
            What::Consent(_) => ("identity", "consent"),
            What::Impression { .. } => ("content", "impression"),
            What::Click { .. } => ("interaction", "click"),
            What::View(_) => ("interaction", "view"),
            What::CartAdd(_) => ("basket", "add"),
            What::Order(_) => ("basket", "order"),
        };
        let ms = (start + self.at).div_euclid(1_000) + if self.fault == Fault::ClockADayAhead { DAY_MS } else { 0 };
        write!(out, r#"{{"topic":"{topic}","type":"{kind}","v":{version},"id":"e{run:x}-{:x}""#, self.number)?;
        match self.fault {
            Fault::WrongType => write!(out, r#","ts":{{"ms":{ms}}}"#)?,
            _ => write!(out, r#","ts":{ms}"#)?,
        }
        if logged_in {
            write!(out, r#","customerId":"c{shopper:06}""#)?;
        }
        let (client, locale) = (PLATFORMS[usize::from(platform)], LOCALES[usize::from(locale)]);
        write!(out, r#","client":"{client}","locale":"{locale}","sessionId":"s{run:x}-{visit:x}""#)?;
        if bot {
            out.push_str(r#","bot":true"#);
        }
        self.write_rest(out, version == 1, run)?;
        out.push('}');
        Ok(())
    }

    fn write_rest(&self, out: &mut String, first_version: bool, run: i64) -> std::fmt::Result {
        let place = if first_version { "page" } else { "slot" };
        let decided = |out: &mut String, decision: &Option<Arc<str>>| match decision {
            Some(decision) => write!(out, r#","decisionId":"{decision}""#),
            None => Ok(()),
        };
        match &self.what {
            What::Login => Ok(()),
            What::Consent(agrees) => write!(out, r#","personalization":{agrees}"#),
            What::Impression { decision, shown } => {
                decided(out, decision)?;
                let list = if first_version { "items" } else { "shown" };
                write!(out, r#","{place}":"{PLACEMENT}","{list}":["#)?;
                for (position, item) in shown.iter().enumerate() {
                    let comma = if position == 0 { "" } else { "," };
                    write!(out, r#"{comma}{{"sku":"{}","pos":{position}}}"#, sku(*item))?;
                }
                out.push(']');
                Ok(())
            }
            What::Click { decision, item } => {
                decided(out, decision)?;
                write!(out, r#","{place}":"{PLACEMENT}","sku":"{}""#, sku(*item))
            }
            What::View(item) | What::CartAdd(item) => write!(out, r#","sku":"{}""#, sku(*item)),
            What::Order(lines) => {
                write!(out, r#","orderId":"o{run:x}-{:x}","lines":["#, self.number)?;
                for (i, (item, cents)) in lines.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    let (euro, cents) = (cents / 100, cents % 100);
                    write!(out, r#"{comma}{{"sku":"{}","qty":1,"price":{euro}.{cents:02}}}"#, sku(*item))?;
                }
                let total: u64 = lines.iter().map(|(_, cents)| u64::from(*cents)).sum();
                write!(out, r#"],"total":{}.{:02}"#, total / 100, total % 100)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: What, version: u8, fault: Fault) -> String {
        let head = Head { shopper: 7, visit: 255, platform: 1, locale: 0, version, logged_in: true, bot: false };
        Event { at: 2_500_000, number: 16, head, what, fault }.json(1_000_000_000, 10)
    }

    #[test]
    fn an_impression_in_both_versions() {
        let what = What::Impression { decision: Some("d1".into()), shown: vec![3, 4] };
        assert_eq!(
            event(what.clone(), 2, Fault::None),
            r#"{"topic":"content","type":"impression","v":2,"id":"ea-10","ts":1002500,"customerId":"c000007","client":"ios","locale":"de","sessionId":"sa-ff","decisionId":"d1","slot":"home","shown":[{"sku":"p00003","pos":0},{"sku":"p00004","pos":1}]}"#
        );
        let old = event(what, 1, Fault::None);
        assert!(old.contains(r#""page":"home","items":[{"#) && old.contains(r#""v":1"#), "{old}");
    }

    #[test]
    fn an_order_adds_up() {
        let order = event(What::Order(vec![(1, 1_999), (2, 205)]), 2, Fault::None);
        let value: serde_json::Value = serde_json::from_str(&order).unwrap();
        assert_eq!(value["total"].as_f64(), Some(22.04));
        assert_eq!(value["lines"][1]["price"].as_f64(), Some(2.05));
    }

    #[test]
    fn what_is_broken_is_broken() {
        let read = |fault| serde_json::from_str::<serde_json::Value>(&event(What::View(1), 2, fault));
        assert!(read(Fault::CutOff).is_err());
        assert!(read(Fault::WrongType).unwrap()["ts"].is_object());
        assert_eq!(read(Fault::ClockADayAhead).unwrap()["ts"].as_i64(), Some(1_002_500 + DAY_MS));
    }
}
