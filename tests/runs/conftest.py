from tests.support.run_fixtures import bench, compiled, small_disk, whole

__all__ = ["bench", "compiled", "small_disk", "whole"]
