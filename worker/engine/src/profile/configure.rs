//! A changed pipeline on living state: what is defined as before stays, what is new begins empty.

use std::sync::Arc;

use super::{Profile, catalog::Catalogs};
use crate::{
    control::Configure,
    plan::{ConfigureError, Plan},
};

impl Profile {
    /// Rows keep the cells of features that are defined as before, experiments that are the same their sums, and open
    /// impressions the values and models they were opened with. An older generation changes nothing.
    ///
    /// # Errors
    /// A configuration that does not compile, or with other numbers of events and attributes than waiting records have.
    pub(super) fn configure(&mut self, configure: Configure) -> Result<(), ConfigureError> {
        let Configure { generation, spec } = configure;
        if generation <= self.generation {
            return Ok(());
        }
        let plan = Arc::new(Plan::of_configuration(generation, &spec)?);
        if plan.names != self.plan.names || plan.partitions != self.plan.partitions {
            let cause = "it has other events, attributes or partitions: that takes another pipeline".to_owned();
            return Err(ConfigureError { generation, cause });
        }
        self.cancel_checkpoint();
        self.users.migrate(&plan.features);
        self.joins.migrate(plan.outcomes.clone(), &plan.example_plans());
        self.experiments.migrate(&self.plan.experiments, &plan.experiments);
        self.dedupe.set_window(plan.dedupe_micros);
        if plan.serves() && !self.plan.serves() {
            self.merge.index_users();
        }
        if plan.has_catalog() != self.plan.has_catalog() {
            self.catalogs = plan.has_catalog().then(Catalogs::default);
        }
        self.served.extend(plan.served_columns());
        self.scratch = plan.features.new_row();
        self.ahead.left = 0;
        (self.plan, self.generation, self.configured) = (plan, generation, Some(spec));
        // Rows of two layouts are not to be mixed in one checkpoint.
        self.wants_base = true;
        Ok(())
    }
}
