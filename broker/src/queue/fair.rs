//! Who is next: start-time fair queueing over slot-seconds (Goyal, Vin, Cheng, SIGCOMM 1996). A tenant's account says how much
//! of the pool it has had, divided by its weight; whoever has had least is next. How long a task will run is not known when it
//! starts, so a start is charged with what the tenant's tasks took of late, and the end settles the difference.
//!
//! Pure integer arithmetic, in microseconds of a slot at weight 100. The scripts of the Redis adapter compute the same.

use super::DEFAULT_WEIGHT;
use mpegflow_protocol::ids::TenantId;
use std::collections::{BTreeSet, HashMap};

/// What a tenant's first task is expected to take, in milliseconds.
pub(super) const FIRST_COST_MS: u64 = 10_000;
/// Accounts of tenants without ready tasks that are remembered; beyond, those that are owed nothing are forgotten.
pub(super) const MAX_IDLE: usize = 10_000;
/// Microseconds in a millisecond, times the weight that counts as one share.
const UNIT: u64 = 1_000 * DEFAULT_WEIGHT as u64;

/// A charge for so many milliseconds of a slot.
pub(super) fn charge(ms: u64, weight: u32) -> u64 {
    ms.saturating_mul(UNIT).checked_div(u64::from(weight)).unwrap_or(u64::MAX)
}

/// The expectation after a task that took `took_ms`: three tenths of it and seven of what was expected.
fn expect(before_ms: u64, took_ms: u64) -> u64 {
    before_ms.saturating_mul(7).saturating_add(took_ms.saturating_mul(3)).div_euclid(10).max(1)
}

#[derive(Debug)]
struct Account {
    at: u64,
    cost_ms: u64,
    /// It has something ready: it is in the order.
    active: bool,
}

/// The accounts of a pool's tenants.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: HashMap<TenantId, Account>,
    order: BTreeSet<(u64, TenantId)>,
    /// Where the tenant stood that was served last: nobody who comes back stands before it, so that idling saves nothing up.
    passed: u64,
    weights: HashMap<TenantId, u32>,
}

impl Ledger {
    pub(super) fn weigh(&mut self, weights: &[(TenantId, u32)]) {
        self.weights = weights.iter().copied().collect();
    }

    fn weight(&self, tenant: TenantId) -> u32 {
        self.weights.get(&tenant).copied().unwrap_or(DEFAULT_WEIGHT).max(1)
    }

    /// The tenant has something ready.
    pub(super) fn arrive(&mut self, tenant: TenantId) {
        let passed = self.passed;
        let new = || Account { at: passed, cost_ms: FIRST_COST_MS, active: false };
        let account = self.accounts.entry(tenant).or_insert_with(new);
        if !account.active {
            account.active = true;
            account.at = account.at.max(passed);
            self.order.insert((account.at, tenant));
        }
    }

    /// The tenant has nothing ready any more.
    pub(super) fn leave(&mut self, tenant: TenantId) {
        if let Some(account) = self.accounts.get_mut(&tenant)
            && account.active
        {
            account.active = false;
            self.order.remove(&(account.at, tenant));
        }
        if self.accounts.len() > self.order.len().saturating_add(MAX_IDLE) {
            let passed = self.passed;
            self.accounts.retain(|_, account| account.active || account.at > passed);
        }
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<TenantId> {
        self.order.first().map(|(_, tenant)| *tenant)
    }

    /// A task of the tenant starts; the milliseconds that it is charged for.
    pub(super) fn start(&mut self, tenant: TenantId) -> u64 {
        if let Some((at, _)) = self.order.first() {
            self.passed = self.passed.max(*at);
        }
        let cost = self.accounts.get(&tenant).map_or(FIRST_COST_MS, |account| account.cost_ms);
        let charge = charge(cost, self.weight(tenant));
        self.shift(tenant, |at| at.saturating_add(charge));
        cost
    }

    /// A task of the tenant ended that was charged for `charged_ms` and took `took_ms`.
    pub(super) fn end(&mut self, tenant: TenantId, charged_ms: u64, took_ms: u64) {
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.cost_ms = expect(account.cost_ms, took_ms);
        }
        self.correct(tenant, charged_ms, took_ms);
    }

    /// A task did not start after all.
    pub(super) fn refund(&mut self, tenant: TenantId, charged_ms: u64) {
        self.correct(tenant, charged_ms, 0);
    }

    fn correct(&mut self, tenant: TenantId, charged_ms: u64, took_ms: u64) {
        let weight = self.weight(tenant);
        let (charged, took) = (charge(charged_ms, weight), charge(took_ms, weight));
        self.shift(tenant, |at| at.saturating_add(took).saturating_sub(charged));
    }

    fn shift(&mut self, tenant: TenantId, to: impl Fn(u64) -> u64) {
        let passed = self.passed;
        let Some(account) = self.accounts.get_mut(&tenant) else { return };
        if account.active {
            self.order.remove(&(account.at, tenant));
            account.at = to(account.at);
            self.order.insert((account.at, tenant));
        } else {
            account.at = to(account.at.max(passed));
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test: overflow is a panic, and that is the report")]
mod tests {
    use super::*;

    fn tenant(n: u128) -> TenantId {
        TenantId::from_u128(n)
    }

    /// Slots that always have work, tasks of the given length for each tenant; the slot-seconds that each has had.
    fn shares(weights: &[u32], took_ms: &[u64], slots: usize, until_ms: u64) -> Vec<u64> {
        let mut ledger = Ledger::default();
        let ids: Vec<TenantId> = (0..weights.len()).map(|n| tenant(n as u128 + 1)).collect();
        ledger.weigh(&ids.iter().copied().zip(weights.iter().copied()).collect::<Vec<_>>());
        ids.iter().for_each(|id| ledger.arrive(*id));
        let mut had = vec![0; weights.len()];
        let mut running: BTreeSet<(u64, usize, usize, u64)> = BTreeSet::new();
        let mut start = |ledger: &mut Ledger, slot: usize, now: u64, running: &mut BTreeSet<_>| {
            let who = ids.iter().position(|id| Some(*id) == ledger.first()).unwrap();
            let charged = ledger.start(ids[who]);
            had[who] += took_ms[who];
            running.insert((now + took_ms[who], slot, who, charged));
        };
        (0..slots).for_each(|slot| start(&mut ledger, slot, 0, &mut running));
        while let Some((now, slot, who, charged)) = running.pop_first() {
            if now > until_ms {
                break;
            }
            ledger.end(ids[who], charged, took_ms[who]);
            start(&mut ledger, slot, now, &mut running);
        }
        had
    }

    #[test]
    fn three_two_one_is_three_two_one_of_the_slot_seconds_whatever_tasks_take() {
        for took in [[1_000, 1_000, 1_000], [500, 30_000, 4_000], [60_000, 100, 2_000]] {
            let had = shares(&[300, 200, 100], &took, 8, 6_000_000);
            let whole: u64 = had.iter().sum();
            for (had, share) in had.iter().zip([3, 2, 1]) {
                let off = had.abs_diff(whole * share / 6);
                assert!(off * 10 < whole * share / 6, "{took:?}: {had} of {whole} is not {share} sixths");
            }
        }
    }

    #[test]
    fn who_comes_back_has_saved_nothing_up_and_owes_what_it_owed() {
        let mut ledger = Ledger::default();
        let (busy, idle) = (tenant(1), tenant(2));
        ledger.arrive(busy);
        for _ in 0..100 {
            let charged = ledger.start(busy);
            ledger.end(busy, charged, 10_000);
        }
        ledger.arrive(idle);
        let turns: Vec<_> = (0..10)
            .map(|_| {
                let who = ledger.first().unwrap();
                ledger.start(who);
                who
            })
            .collect();
        assert!(turns.iter().filter(|who| **who == idle).count() <= 6, "{turns:?}");
        // Leaving and coming back at once is no way to the front.
        ledger.leave(idle);
        ledger.arrive(idle);
        ledger.start(idle);
        assert_eq!(ledger.first(), Some(busy));
    }

    #[test]
    fn accounts_are_bounded() {
        let mut ledger = Ledger::default();
        for n in 0..3 * MAX_IDLE as u128 {
            ledger.arrive(tenant(n));
            ledger.leave(tenant(n));
        }
        assert!(ledger.accounts.len() <= MAX_IDLE + 1, "{}", ledger.accounts.len());
    }
}
