//! The order: what the user requests for a device. Wipes and plans share it, and plan files contain it.

use serde::{Deserialize, Serialize};

use crate::device::Force;
use crate::device::identity::Identity;
use crate::error::{Error, Kind, Result};
use crate::io::Geometry;
use crate::pattern::Seed;
use crate::plan::{Device, KeyPlan, Method, Plan, Policy};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub passes: Passes,
    /// Adds a final pass of zeroes.
    pub final_zero: bool,
    /// Uses the kernel's write-zeroes command instead of writing zeroes.
    pub offload_zeroes: bool,
    pub policy: Policy,
    /// Destroys the keys if the device is a LUKS volume.
    pub prefer_key: bool,
    /// The first byte, and how many; `None` is the device's beginning, and its end.
    pub offset: Option<u64>,
    pub size: Option<u64>,
    /// The targets are image files, not devices.
    pub image: bool,
    pub force: Vec<Force>,
}

/// The passes: a named method or a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passes {
    /// A scheme by its name ([`crate::plan::SCHEMES`]).
    Method(String),
    /// As in `0x00,0xff,random`.
    List(String),
}

impl Default for Order {
    /// One pass of zeroes over the whole device, and a sample read back.
    fn default() -> Order {
        Order {
            passes: Passes::Method("zero".into()),
            final_zero: false,
            offload_zeroes: false,
            policy: Policy::Standard,
            prefer_key: false,
            offset: None,
            size: None,
            image: false,
            force: Vec::new(),
        }
    }
}

impl Order {
    /// Checks that an order is valid, as one read from a file may not be.
    ///
    /// # Errors
    /// A usage error that names what excludes what.
    pub fn check(&self) -> Result<()> {
        if self.prefer_key && (self.offset.is_some() || self.size.is_some()) {
            return Err(Error::usage("the keys of a part of a volume cannot be destroyed")
                .with_remedy("leave out the part, or --prefer-key"));
        }
        if let Policy::Claim { confidence_ppm, unwiped_ppb } = self.policy
            && !((1..1_000_000).contains(&confidence_ppm) && (1..1_000_000_000).contains(&unwiped_ppb))
        {
            return Err(Error::usage("a confidence, or a share, of none or all")
                .with_remedy("both lie above 0 and below 1"));
        }
        self.method().map(drop)
    }

    pub fn method(&self) -> Result<Method> {
        let mut method = match &self.passes {
            Passes::Method(name) => Method::named(name)?,
            Passes::List(list) => Method::from_list(list)?,
        };
        if self.final_zero {
            method = method.then_zero();
        }
        if self.offload_zeroes {
            method = method.offload_zeroes()?;
        }
        method.allows(self.policy)?;
        Ok(method)
    }

    /// `keys` finds the volume on the device, where its keys are preferred.
    pub fn plan(
        &self,
        method: &Method,
        identity: &Identity,
        geometry: &Geometry,
        keys: impl FnOnce() -> Result<KeyPlan>,
    ) -> Result<Plan> {
        let device = geometry.into();
        let overwrite = || self.overwrite(method, identity, geometry);
        let plan = match self.prefer_key.then(keys) {
            None => overwrite(),
            Some(Ok(keys)) if keys.found.version.is_none() => overwrite().map(|plan| Plan {
                method: format!("{} (no key was destroyed: its LUKS header is damaged)", plan.method),
                ..plan
            }),
            Some(Ok(keys)) => Plan::destroy_key(keys, 1, &device, &mut Seed::from_kernel),
            // What has no key that could be destroyed is overwritten, and the record says why.
            Some(Err(why)) if why.kind == Kind::Unsupported => overwrite().map(|plan| Plan {
                method: format!("{} (no key was destroyed: {})", plan.method, why.what()),
                ..plan
            }),
            Some(Err(error)) => Err(error),
        };
        plan.map_err(|error| error.on(&identity.path))
    }

    fn overwrite(&self, method: &Method, identity: &Identity, geometry: &Geometry) -> Result<Plan> {
        let device = Device::from(geometry);
        let area = device.area(self.offset, self.size)?;
        let plan = Plan::new(method, self.policy, area, &device, &mut Seed::from_kernel)?;
        match &identity.thin {
            Some(thin) => plan.on_thin(thin.discards),
            None => Ok(plan),
        }
    }
}
