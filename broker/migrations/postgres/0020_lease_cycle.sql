-- What a lease and an end check themselves. Both insert only what follows from a row that the same statement has locked, so a
-- reference finds nothing that the statement does not; each cost a query of its own for every lease and every next task.
ALTER TABLE attempts DROP CONSTRAINT attempts_task_fkey;
ALTER TABLE tasks DROP CONSTRAINT tasks_job_fkey;
