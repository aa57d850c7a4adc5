import type { Pool } from 'pg'
import type { HashStore } from './hash-store.js'

const TABLE = 'internvl_hashes'

/** Rows of one round trip. */
const PAGE = 1000

/** Hashes in one table of PostgreSQL. */
export const postgresStore = async (pool: Pool): Promise<HashStore> => {
  // two processes that create the table at once: one of them fails, and the table is there
  const create = () =>
    pool.query(`create table if not exists ${TABLE} (key text, field text, value text not null, primary key (key, field))`)
  await create().catch(create)
  const insert = async (key: string, entries: readonly (readonly [string, string])[], conflict: string): Promise<void> => {
    const [fields, values] = [entries.map(([field]) => field), entries.map(([, value]) => value)]
    const sql = `insert into ${TABLE} select $1, * from unnest($2::text[], $3::text[]) on conflict (key, field) do ${conflict}`
    await pool.query(sql, [key, fields, values])
  }
  return {
    setNew: (key, entries) => insert(key, entries, 'nothing'),
    set: (key, entries) => insert(key, entries, 'update set value = excluded.value'),
    get: async (key, fields) => {
      const { rows } = await pool.query(`select field, value from ${TABLE} where key = $1 and field = any($2)`, [key, fields])
      const values = new Map(rows.map(({ field, value }) => [field, value]))
      return fields.map((field) => values.get(field))
    },
    delete: async (key, fields) => {
      await pool.query(`delete from ${TABLE} where key = $1 and field = any($2)`, [key, fields])
    },
    increment: async (key, field) => {
      const sql = `insert into ${TABLE} values ($1, $2, '1') on conflict (key, field)
        do update set value = (${TABLE}.value::bigint + 1)::text returning value`
      return Number((await pool.query(sql, [key, field])).rows[0].value)
    },
    count: async (key) => Number((await pool.query(`select count(*) from ${TABLE} where key = $1`, [key])).rows[0].count),
    scan: async function* (key) {
      let after = ''
      while (true) {
        const sql = `select field, value from ${TABLE} where key = $1 and field > $2 order by field limit ${PAGE}`
        const { rows } = await pool.query(sql, [key, after])
        for (const { field, value } of rows) yield [field, value] as const
        if (rows.length < PAGE) return
        after = rows.at(-1).field
      }
    },
    drop: async (keys) => {
      await pool.query(`delete from ${TABLE} where key = any($1)`, [keys])
    },
    close: () => pool.end()
  }
}
