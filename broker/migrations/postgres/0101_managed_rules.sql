-- The name of a rule in the resource that manages it; null where the tenant made it.
ALTER TABLE intake_rules ADD COLUMN managed TEXT COLLATE "C";
CREATE UNIQUE INDEX intake_rules_managed ON intake_rules (tenant, managed);
