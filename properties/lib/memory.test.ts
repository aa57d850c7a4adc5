import assert from 'node:assert/strict'
import { availableMemory } from '../../lib/memory.js'

/** A machine's files, by path. */
const machine = (files: Readonly<Record<string, string>>) => availableMemory(async (path) => files[path])
const meminfo = (available: number, swap: number): string =>
  `MemTotal: 1 kB\nMemAvailable:   ${available / 1024} kB\nSwapFree: ${swap / 1024} kB\n`

describe('memory at hand', () => {
  it('is what the kernel says is available; with swap at most', async () => {
    assert.deepEqual(await machine({ '/proc/meminfo': meminfo(8192, 1024) }), { bytes: 8192, most: 9216, sure: true })
  })

  it('a limit of the process’s control group, or of one above it, counts where it leaves less; cached files are room', async () => {
    const first = { '/proc/self/cgroup': '5:cpu:/x\n4:memory:/a/b\n', '/proc/meminfo': meminfo(2 ** 40, 0) }
    const at = (folder: string, limit: number | string) => ({
      [`${folder}/memory.limit_in_bytes`]: `${limit}\n`,
      [`${folder}/memory.usage_in_bytes`]: '700\n',
      [`${folder}/memory.stat`]: 'cache 9\ntotal_inactive_file 100\ntotal_active_file 50\n'
    })
    const own = '/sys/fs/cgroup/memory/a/b'
    assert.equal((await machine({ ...first, ...at(own, 1000) })).bytes, 450)
    assert.equal(
      (await machine({ ...first, ...at(own, '9223372036854771712'), ...at('/sys/fs/cgroup/memory/a', 900) })).bytes,
      350
    )
    assert.equal((await machine({ ...first, ...at(own, 600) })).most, 50)
    const second = { ...first, '/proc/self/cgroup': '0::/\n' }
    const root = { '/sys/fs/cgroup/memory.current': '700\n', '/sys/fs/cgroup/memory.stat': 'inactive_file 30\nactive_file 0\n' }
    assert.equal((await machine({ ...second, ...root, '/sys/fs/cgroup/memory.max': '1000\n' })).bytes, 330)
    assert.equal((await machine({ ...second, ...root, '/sys/fs/cgroup/memory.max': 'max\n' })).bytes, 2 ** 40)
  })

  it('where the system does not say, it is an estimate; INTERNVL_MEMORY says it for sure', async () => {
    const elsewhere = await machine({})
    assert.ok(elsewhere.bytes > 0)
    assert.equal(elsewhere.sure, process.platform === 'win32')
    process.env.INTERNVL_MEMORY = '3GB'
    try {
      assert.deepEqual(await machine({ '/proc/meminfo': meminfo(8192, 0) }), { bytes: 3e9, most: 3e9, sure: true })
    } finally {
      delete process.env.INTERNVL_MEMORY
    }
  })
})
