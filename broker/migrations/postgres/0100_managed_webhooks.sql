-- The name of a webhook in the resource that manages it; null where the tenant made it.
ALTER TABLE webhooks ADD COLUMN managed TEXT COLLATE "C";
CREATE UNIQUE INDEX webhooks_managed ON webhooks (tenant, managed);
