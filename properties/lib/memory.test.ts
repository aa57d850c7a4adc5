import assert from 'node:assert/strict'
import { availableMemory } from '../../lib/memory.js'

/** A machine's files, by path. */
const machine = (files: Readonly<Record<string, string>>) => availableMemory(async (path) => files[path])
const meminfo = (available: number, swap: number): string =>
  `MemTotal: 1 kB\nMemAvailable:   ${available / 1024} kB\nSwapFree: ${swap / 1024} kB\n`

describe('available memory', () => {
  it('is MemAvailable of the kernel, plus swap in `bytesWithSwap`', async () => {
    assert.deepEqual(await machine({ '/proc/meminfo': meminfo(8192, 1024) }), { bytes: 8192, bytesWithSwap: 9216, exact: true })
  })

  it('a lower limit of the process’s control group or of a parent group counts; cached files count as available', async () => {
    const first = { '/proc/self/cgroup': '5:cpu:/x\n4:memory:/a/b\n', '/proc/meminfo': meminfo(2 ** 40, 0) }
    const at = (folder: string, limit: number | string) => ({
      [`${folder}/memory.limit_in_bytes`]: `${limit}\n`,
      [`${folder}/memory.usage_in_bytes`]: '700\n',
      [`${folder}/memory.stat`]: 'cache 9\ntotal_inactive_file 100\ntotal_active_file 50\n'
    })
    const group = '/sys/fs/cgroup/memory/a/b'
    assert.equal((await machine({ ...first, ...at(group, 1000) })).bytes, 450)
    assert.equal(
      (await machine({ ...first, ...at(group, '9223372036854771712'), ...at('/sys/fs/cgroup/memory/a', 900) })).bytes,
      350
    )
    assert.equal((await machine({ ...first, ...at(group, 600) })).bytesWithSwap, 50)
    const second = { ...first, '/proc/self/cgroup': '0::/\n' }
    const root = { '/sys/fs/cgroup/memory.current': '700\n', '/sys/fs/cgroup/memory.stat': 'inactive_file 30\nactive_file 0\n' }
    assert.equal((await machine({ ...second, ...root, '/sys/fs/cgroup/memory.max': '1000\n' })).bytes, 330)
    assert.equal((await machine({ ...second, ...root, '/sys/fs/cgroup/memory.max': 'max\n' })).bytes, 2 ** 40)
  })

  it('is an estimate on other systems; INTERNVL_MEMORY sets an exact value', async () => {
    const elsewhere = await machine({})
    assert.ok(elsewhere.bytes > 0)
    assert.equal(elsewhere.exact, process.platform === 'win32')
    process.env.INTERNVL_MEMORY = '3GB'
    try {
      assert.deepEqual(await machine({ '/proc/meminfo': meminfo(8192, 0) }), { bytes: 3e9, bytesWithSwap: 3e9, exact: true })
      for (const wrong of ['8BG', '-1', 'foo']) {
        process.env.INTERNVL_MEMORY = wrong
        await assert.rejects(machine({}), { name: 'RangeError', message: new RegExp(`INTERNVL_MEMORY: .*${wrong}`) })
      }
    } finally {
      delete process.env.INTERNVL_MEMORY
    }
  })
})
