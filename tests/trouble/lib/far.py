"""far: a host whose donor is on another one, with a password, at the other end of a road.

    way, host = far.host(SIZE, POOL)
"""

import donors
import load
import road


def host(size, pool):
    way = road.Road()
    donor = donors.Donor(where=(road.FAR, 6390), prefix=way.far)
    return way, load.Host(prefix=way.near, size=str(size), memory=str(pool), overflow=donor.uri,
                          overflow_password="+" + donors.password_file()).start()
