//! The order: what the user requests for a device. Wipes and plans share it, and plan files contain it.

use serde::{Deserialize, Serialize};

use crate::device::Force;
use crate::device::identity::Identity;
use crate::error::{Error, Kind, Result};
use crate::io::Geometry;
use crate::pattern::Seed;
use crate::plan::{Device, KeyPlan, Method, Plan, Policy};

/// What the user asks for, the same for all devices of a session. The default is one pass of zeroes over the
/// whole device and a sample read back; `Order { image: true, ..Order::default() }` changes a part of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What is written, before `final_zero` and `offload_zeroes`.
    pub passes: Passes,
    /// Adds a final pass of zeroes.
    pub final_zero: bool,
    /// Uses the kernel's write-zeroes command instead of writing zeroes.
    pub offload_zeroes: bool,
    /// Overwrites what is not zero, at last with zeroes, and leaves the rest; a thin volume is always so.
    #[serde(default)]
    pub skip_zeroes: bool,
    /// How much is read back, before the first pass and after the last.
    pub policy: Policy,
    /// Destroys the keys if the device is a LUKS volume.
    pub prefer_key: bool,
    /// The first byte, a multiple of the logical block; `None` is the device's beginning.
    pub offset: Option<u64>,
    /// How many bytes from there, a multiple of the logical block; `None` is all up to the end.
    pub size: Option<u64>,
    /// The targets are image files, not devices.
    pub image: bool,
    /// The refusals that are overridden; each that applies is recorded.
    pub force: Vec<Force>,
}

/// The passes: a named method or a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
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
            skip_zeroes: false,
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

    /// The method that the passes are, with the final pass and the offload applied.
    ///
    /// # Errors
    /// A usage error where a name or a list is not understood, or what is asked for excludes something else.
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
    /// The plan for one device.
    ///
    /// # Errors
    /// A usage error where the part does not suit the device; of kind [`Kind::Unsupported`] where a thin
    /// volume cannot do what is asked; any error of `keys` that is not of kind [`Kind::Unsupported`].
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
            None if self.skip_zeroes => plan.skip_zeroes(),
            None => Ok(plan),
        }
    }
}
